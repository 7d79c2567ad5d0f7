//! Numbers in JSON: the model gets exactly the number that was sent, to the last bit, over every
//! interface that accepts JSON.

use crate::support::{Host, Setup, model};

fn serve() -> Host {
    let manifest = "[models.m]\npath = \"datatypes.onnx\"\n";
    Setup::new(manifest).file("datatypes.onnx", model("datatypes")).start()
}

/// All inputs of the model: name and datatype.
const NAMES: [(&str, &str); 14] = [
    ("bool", "BOOL"),
    ("uint8", "UINT8"),
    ("uint16", "UINT16"),
    ("uint32", "UINT32"),
    ("uint64", "UINT64"),
    ("int8", "INT8"),
    ("int16", "INT16"),
    ("int32", "INT32"),
    ("int64", "INT64"),
    ("fp16", "FP16"),
    ("bf16", "BF16"),
    ("fp32", "FP32"),
    ("fp64", "FP64"),
    ("bytes", "BYTES"),
];

/// Sends `elements` to one input over `POST /predict` and returns the text of the same output.
fn plain(host: &Host, name: &str, elements: &str) -> String {
    let data: Vec<String> = NAMES
        .iter()
        .map(|(other, _)| format!("\"{other}\":[{}]", if *other == name { elements } else { "" }))
        .collect();
    let answer = host.post("/predict", format!("{{\"model\":\"m\",\"data\":{{{}}}}}", data.join(",")));
    assert_eq!(answer.status, 200, "{}", answer.text());
    elements_of(&answer.text(), &format!("\"{name}_out\":["))
}

/// Like `plain`, over the Open Inference Protocol in JSON.
fn oip(host: &Host, name: &str, elements: &str) -> String {
    let count = elements.split(',').count();
    let inputs: Vec<String> = NAMES
        .iter()
        .map(|(other, datatype)| {
            let (count, elements) = if *other == name { (count, elements) } else { (0, "") };
            format!(r#"{{"name":"{other}","datatype":"{datatype}","shape":[{count}],"data":[{elements}]}}"#)
        })
        .collect();
    let output = format!(r#"[{{"name":"{name}_out"}}]"#);
    let body = format!(r#"{{"inputs":[{}],"outputs":{output}}}"#, inputs.join(","));
    let answer = host.post("/v2/models/m/infer", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    elements_of(&answer.text(), "\"data\":[")
}

/// Returns the text of the list that follows `start`.
fn elements_of(text: &str, start: &str) -> String {
    let from = text.find(start).unwrap_or_else(|| panic!("{start} is not in {text}")) + start.len();
    text[from..].split(']').next().expect("a list").to_owned()
}

/// Returns a deterministic generator of random bits.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        // The generator splitmix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn floats(text: &str) -> Vec<u64> {
    text.split(',').map(|number| number.parse::<f64>().expect("a number").to_bits()).collect()
}

#[test]
fn doubles_pass_unchanged() {
    let host = serve();
    let mut next = random(1);
    let mut doubles =
        vec![98.87900571282945, f64::MIN_POSITIVE, 5e-324, f64::MAX, -0.0, 0.1, 9007199254740993.0];
    doubles.extend((0..1000).map(|_| (next() >> 11) as f64 / (1_u64 << 53) as f64 * 100.0));
    doubles.extend((0..1000).map(|_| f64::from_bits(next())).filter(|double| double.is_finite()));
    let sent: Vec<String> = doubles.iter().map(|double| format!("{double:?}")).collect();
    let bits: Vec<u64> = doubles.iter().map(|double| double.to_bits()).collect();
    assert_eq!(floats(&plain(&host, "fp64", &sent.join(","))), bits);
    assert_eq!(floats(&oip(&host, "fp64", &sent.join(","))), bits);
}

#[test]
fn singles_and_halves_are_rounded_once() {
    let host = serve();
    for (name, sent, expected) in [
        // If read as FP64 first, each of these is rounded to a neighbouring FP32.
        ("fp32", "7.038531e-26", "7.038531e-26"),
        ("fp32", "1.00000005960464480000000000001", "1.0000001"),
        ("fp32", "9007199791611905", "9007200328482816"),
        ("fp32", "16777217.00000000000000000001", "16777218.0"),
        ("fp16", "1.000488281250000000000000001", "1.0009765625"),
        ("bf16", "1.003906250000000000000000001", "1.0078125"),
        ("fp16", "2049", "2048.0"),
        ("fp32", "-0", "-0.0"),
        ("fp64", "-0.0e5", "-0.0"),
        ("fp32", "1e-400", "0.0"),
        ("fp64", "0.1e1", "1.0"),
    ] {
        for got in [plain(&host, name, sent), oip(&host, name, sent)] {
            // Smaller types are written with the digits of an FP32, which are fewer than those of
            // the FP64 of the same value.
            let bits = |text: &str| match name {
                "fp64" => text.parse::<f64>().expect("a number").to_bits(),
                _ => u64::from(text.parse::<f32>().expect("a number").to_bits()),
            };
            assert_eq!(bits(&got), bits(expected), "{name}: {sent} came back as {got}");
        }
    }
    let mut next = random(2);
    let singles =
        std::iter::repeat_with(|| f32::from_bits(next() as u32)).filter(|single| single.is_finite());
    let singles: Vec<f32> = singles.take(2000).collect();
    // Once with the shortest digits that identify this FP32, and once with those of the same number
    // in FP64, as in lists from NumPy.
    for sent in [
        singles.iter().map(|single| format!("{single:?}")).collect::<Vec<_>>().join(","),
        singles.iter().map(|single| format!("{:?}", f64::from(*single))).collect::<Vec<_>>().join(","),
    ] {
        for got in [plain(&host, "fp32", &sent), oip(&host, "fp32", &sent)] {
            let got: Vec<u32> =
                got.split(',').map(|number| number.parse::<f32>().unwrap().to_bits()).collect();
            assert_eq!(got, singles.iter().map(|single| single.to_bits()).collect::<Vec<_>>());
        }
    }
}

#[test]
fn whole_numbers_are_exact_or_refused() {
    let host = serve();
    for (name, elements) in [
        ("int64", "9007199254740993,-9223372036854775808,9223372036854775807"),
        ("uint64", "9007199254740993,18446744073709551615"),
        ("int32", "2147483647,-2147483648,0"),
    ] {
        assert_eq!(plain(&host, name, elements), elements);
        assert_eq!(oip(&host, name, elements), elements);
    }
    for name in ["int8", "uint8", "int64", "uint64"] {
        assert_eq!(plain(&host, name, "-0"), "0", "{name}");
    }
    let refused = |name: &str, element: &str, part: &str| {
        let data = format!(r#"{{"model":"m","data":{{"{name}":[{element}]}}}}"#);
        host.post("/predict", data).refused(400, "invalid_input", &[part]);
    };
    refused("int64", "9223372036854775808", "out of range for INT64");
    refused("uint64", "18446744073709551616", "out of range for UINT64");
    refused("uint8", "-1", "out of range for UINT8");
    refused("int32", "1e3", "expected a whole number for INT32");
    refused("fp64", "1e400", "number out of range");
    refused("fp32", "3.5e38", "out of range for FP32");
}

#[test]
fn parameters_are_read_to_their_last_digit() {
    let host = serve();
    let mut next = random(3);
    for _ in 0..50 {
        let double = (next() >> 11) as f64 / (1_u64 << 53) as f64 * 100.0;
        // The error shows the number as it was read, because the parameter must be true or false.
        let body = format!(r#"{{"inputs":[],"parameters":{{"binary_data_output":{double:?}}}}}"#);
        let message = host.post("/v2/models/m/infer", body).json()["error"].to_string();
        assert!(message.contains(&format!("is {double:?};")), "{message}");
    }
}

#[test]
fn a_generate_request_passes_doubles_unchanged() {
    let host = serve();
    for double in [98.87900571282945, 5e-324, -0.0] {
        let fields: Vec<String> = NAMES
            .iter()
            .map(|(name, _)| match *name {
                "fp64" => format!("\"fp64\":{double:?}"),
                name => format!("\"{name}\":[]"),
            })
            .collect();
        let answer = host.post("/v2/models/m/generate", format!("{{{}}}", fields.join(",")));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["fp64_out"].as_f64().map(f64::to_bits), Some(f64::to_bits(double)));
    }
}
