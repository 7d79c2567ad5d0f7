//! The host of a test answers as a host does: tensors, the request, configuration, assets, state,
//! metrics, log, HTTP.

use hostler_plugin::testing::{
    Host, Level, check_inputs, check_outputs, predict, predict_optional, transform,
};
use hostler_plugin::{
    Datatype, Error, ErrorKind, InstanceCell, Model, ModelMetadata, OptionalInputs, Parameter, Payload,
    Request, Tensor, Transformer, assets, config, http, log, metrics, models, state, tensor,
};
use std::time::Duration;

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().message
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn tensors_are_checked_as_in_a_host_and_need_none() {
    let x = tensor::fp32("x", &[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
    assert_eq!(
        (x.name(), x.datatype(), x.shape(), x.byte_length()),
        ("x".into(), Datatype::Fp32, vec![2, 3], 24)
    );
    assert_eq!(
        (x.read(4, 4), x.read(20, 100).len(), x.read(24, 1)),
        (1.0_f32.to_le_bytes().into(), 4, vec![])
    );
    let y = x.renamed("y").reshaped(&[6]).unwrap();
    assert_eq!((y.name(), y.shape(), y.to_f32().unwrap()[5]), ("y".into(), vec![6], 5.0));
    assert_eq!(
        message(x.reshaped(&[7])),
        "tensor \"x\": cannot reshape [2,3] to [7]: the number of elements differs"
    );
    for (datatype, shape, data, expected) in [
        (
            Datatype::Fp32,
            &[2, 2][..],
            &[0; 12][..],
            "tensor \"t\": FP32 of shape [2,2] needs 16 bytes, got 12",
        ),
        (Datatype::Int8, &[-1], &[0], "tensor \"t\": shape [-1] has a negative dimension"),
        (Datatype::Int8, &[1; 17], &[0], "tensor \"t\": 17 dimensions; at most 16 are supported"),
        (Datatype::Bool, &[1], &[2], "tensor \"t\": BOOL elements are bytes 0 or 1"),
        (Datatype::Bytes, &[1], &[9, 0, 0, 0, 1], "tensor \"t\": BYTES data ends in the middle of element 0"),
        (Datatype::Bytes, &[2], &[1, 0, 0, 0, 7], "tensor \"t\": BYTES of shape [2] needs 2 elements, got 1"),
        (
            Datatype::Int64,
            &[i64::MAX, 2],
            &[],
            "tensor \"t\": shape [9223372036854775807,2] has more elements than can be addressed",
        ),
    ] {
        let error = Tensor::create("t", datatype, shape, data).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::InvalidInput, expected));
    }
}

#[test]
fn each_datatype_can_be_made_and_read() {
    assert_eq!(tensor::boolean("t", &[2], &[true, false]).unwrap().to_bool().unwrap(), [true, false]);
    assert_eq!(tensor::uint8("t", &[1], &[u8::MAX]).unwrap().to_u8().unwrap(), [u8::MAX]);
    assert_eq!(tensor::uint16("t", &[1], &[u16::MAX]).unwrap().to_u16().unwrap(), [u16::MAX]);
    assert_eq!(tensor::uint32("t", &[1], &[u32::MAX]).unwrap().to_u32().unwrap(), [u32::MAX]);
    assert_eq!(tensor::uint64("t", &[1], &[u64::MAX]).unwrap().to_u64().unwrap(), [u64::MAX]);
    assert_eq!(tensor::int8("t", &[1], &[i8::MIN]).unwrap().to_i8().unwrap(), [i8::MIN]);
    assert_eq!(tensor::int16("t", &[1], &[i16::MIN]).unwrap().to_i16().unwrap(), [i16::MIN]);
    assert_eq!(tensor::int32("t", &[1], &[i32::MIN]).unwrap().to_i32().unwrap(), [i32::MIN]);
    assert_eq!(tensor::int64("t", &[], &[i64::MIN]).unwrap().to_i64().unwrap(), [i64::MIN]);
    assert_eq!(tensor::fp64("t", &[1], &[0.1]).unwrap().to_f64().unwrap(), [0.1]);
    assert_eq!(tensor::bytes("t", &[2], &["a", ""]).unwrap().to_bytes().unwrap(), [&b"a"[..], b""]);
    let (half, brain) = (tensor::fp16("t", &[1], &[0.1]).unwrap(), tensor::bf16("t", &[1], &[-0.1]).unwrap());
    assert_eq!((half.data(), half.to_fp16().unwrap()), (vec![0x66, 0x2e], vec![0.099_975_586]));
    assert_eq!((brain.data(), brain.to_bf16().unwrap()), (vec![0xcd, 0xbd], vec![-0.100_097_656]));
    assert_eq!(
        (half.to_floats().unwrap(), brain.to_floats().unwrap()),
        (vec![0.099_975_586], vec![-0.100_097_656])
    );
}

#[test]
fn a_wrong_datatype_or_number_of_elements_says_what_to_do() {
    let error = tensor::int64("rows", &[1], &[3]).unwrap().to_f32().unwrap_err();
    let expected = "tensor \"rows\": to_f32: expected FP32, got INT64; read it with to_i64";
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Failed, expected));
    assert_eq!(
        message(tensor::bf16("t", &[1], &[1.0]).unwrap().to_fp16()),
        "tensor \"t\": to_fp16: expected FP16, got BF16; read it with to_bf16"
    );
    assert_eq!(
        message(tensor::bytes("t", &[0], &[""; 0]).unwrap().to_floats()),
        "tensor \"t\": to_floats: expected FP16, BF16 or FP32, got BYTES; read it with to_bytes"
    );
    assert_eq!(
        message(tensor::int16("t", &[2, 2], &[1, 2, 3])),
        "tensor \"t\": INT16 of shape [2,2] needs 8 bytes, got 6: the shape has 4 elements, and 3 were given"
    );
    let x = tensor::int8("x", &[1], &[1]).unwrap();
    assert_eq!(message(tensor::named(&[x], "y")), "there is no tensor \"y\"");
}

#[test]
fn a_request_has_what_the_test_gave_it() {
    let host = Host::new();
    let request = host.request();
    assert_eq!(
        (request.id(), request.model(), request.version()),
        ("request-1".into(), "model".into(), "1".into())
    );
    assert_eq!((request.time_left(), request.cancelled(), request.note()), (None, false, vec![]));
    let request = host
        .request()
        .with_id("abc")
        .with_model("churn", "3")
        .with_parameter("n", 3)
        .with_parameter("share", 0.5)
        .with_parameter("name", "x")
        .with_note(b"note")
        .with_timeout(ms(20))
        .with_cancellation(ms(5));
    assert_eq!(
        (request.id(), request.model(), request.version()),
        ("abc".into(), "churn".into(), "3".into())
    );
    assert_eq!(request.parameter_names(), ["n", "name", "share"]);
    assert_eq!((request.integer("n").unwrap(), request.number("n").unwrap()), (Some(3), Some(3.0)));
    assert!(matches!(request.parameter("share"), Some(Parameter::Number(0.5))));
    assert_eq!(request.flag("name").unwrap_err().field.as_deref(), Some("parameters.name"));
    host.advance(ms(5));
    assert_eq!((request.time_left(), request.cancelled()), (Some(15), true));
    assert_eq!(request.note(), b"note");
}

#[test]
fn config_assets_and_log() {
    let host = Host::new().config("limit", "3").asset("words", "abcdef");
    assert_eq!(config::number("limit", 1, 1..=5).unwrap(), 3);
    assert_eq!(config::get("other").unwrap(), None);
    assert_eq!((assets::names(), assets::read("words").unwrap()), (vec!["words".into()], b"abcdef".to_vec()));
    assert_eq!(assets::read_range("words", 4, 10).unwrap(), b"ef");
    assert_eq!(
        message(assets::read("other")),
        "asset \"other\": no asset \"other\"; the host of this test has \"words\""
    );
    log::warn("careful");
    let lines: Vec<_> = host.log().into_iter().map(|line| (line.level, line.message)).collect();
    assert_eq!(lines, [(Level::Warn, "careful".into())]);
}

#[test]
fn the_state_is_bounded_and_expires() {
    let host = Host::new().state_kb(1);
    for key in ["a", "b", "c"] {
        state::set(key, &[0; 200], None).unwrap();
    }
    assert!(state::get("a").is_some());
    state::set("d", &[0; 200], Some(ms(10))).unwrap();
    assert!(state::get("b").is_none() && state::get("a").is_some(), "b was used least recently");
    host.advance(ms(10));
    assert!(state::get("d").is_none() && state::get("c").is_some());
    let error = state::set("e", &[0; 2000], None).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge);
    assert!(state::delete("a") && !state::delete("a"));
    state::set_tensors("t", &[tensor::int8("x", &[1], &[7]).unwrap()], None).unwrap();
    assert_eq!(state::get_tensors("t").unwrap()[0].to_i8().unwrap(), [7]);
    assert!(state::get("t").is_none());
    assert_eq!((state::add("n", i64::MAX), state::add("n", 1)), (i64::MAX, i64::MAX));
    assert_eq!((state::compare_exchange("n", 1, 2), state::read("n")), (Err(i64::MAX), i64::MAX));
    assert_eq!(state::update("m", |value| Some(value + 2)), Ok(2));
}

#[test]
fn metrics_are_kept_and_checked() {
    let host = Host::new();
    metrics::count("rows", 2);
    metrics::count("rows", 1);
    metrics::set("depth", 0.5);
    assert_eq!((host.events("rows"), host.events("other"), host.value("depth")), (3, 0, Some(0.5)));
    let rows = metrics::Counter::new("rows", "Rows.", &["country"]).unwrap();
    rows.add(&["de"], 1.5).unwrap();
    metrics::Counter::new("rows", "Rows.", &["country"]).unwrap().add(&["de"], 1.0).unwrap();
    assert_eq!((host.counter("rows", &["de"]), host.counter("rows", &["fr"])), (Some(2.5), None));
    assert!(message(rows.add(&["de"], -1.0)).contains("only grows"));
    assert!(message(rows.add(&[], 1.0)).contains("has 1 labels (country), not 0"));
    let depth = metrics::Gauge::new("depth", "Depth.", &[]).unwrap();
    depth.set(&[], 3.0).unwrap();
    depth.add(&[], -1.0).unwrap();
    assert_eq!(host.gauge("depth", &[]), Some(2.0));
    metrics::Histogram::new("wait", "Wait.", &[], &[0.1, 1.0]).unwrap().observe(&[], 0.3).unwrap();
    assert_eq!(host.observations("wait", &[]), [0.3]);
    assert!(metrics::Counter::new("rows", "Other.", &["country"]).is_err());
    assert!(metrics::Counter::new("x_total", "X.", &[]).is_err());
    assert!(metrics::Histogram::new("h", "H.", &[], &[1.0, 0.5]).is_err());
    assert_eq!(metrics::Gauge::new("g", "G.", &["l"; 9]).unwrap_err().kind, ErrorKind::TooLarge);
}

#[test]
fn http_is_answered_by_a_closure_or_not_allowed() {
    let host = Host::new();
    let get = || http::fetch(http::Request::get("http://a/").header("x", "1"));
    assert_eq!(get().unwrap_err().kind, ErrorKind::Unsupported);
    let mut count = 0;
    let _host = host.http(move |request| {
        assert_eq!(request.headers, [("x".to_owned(), "1".to_owned())]);
        count += 1;
        Ok(http::Response::new(if count == 1 { 503 } else { 200 }, request.url.as_str()))
    });
    assert_eq!(message(get().unwrap().success()), "the server answered with status 503");
    assert_eq!(get().unwrap().success().unwrap().text().unwrap(), "http://a/");
}

#[test]
#[should_panic(expected = "config was used without a host: create `hostler_plugin::testing::Host`")]
fn a_function_without_a_host_says_what_to_do() {
    let _ = config::get("x");
}

#[test]
fn each_host_has_its_own_state_and_cells_and_the_last_one_is_in_use() {
    static LIMIT: InstanceCell<i32> = InstanceCell::new();
    let limit = || LIMIT.get_or_try_init(|| config::number("limit", 0, 0..=9)).copied();
    let outer = Host::new().config("limit", "1");
    assert_eq!((limit().unwrap(), state::add("n", 5)), (1, 5));
    {
        let _inner = Host::new().config("limit", "ten");
        assert!(limit().is_err());
        assert_eq!(state::add("n", 1), 1);
    }
    assert_eq!((limit().unwrap(), state::read("n")), (1, 5));
    drop(outer);
}

struct Sum;

impl OptionalInputs for Sum {
    fn names() -> Vec<String> {
        vec!["b".into()]
    }
}

impl Model for Sum {
    fn metadata() -> ModelMetadata {
        let spec = |name| tensor::spec(name, Datatype::Fp32, &[-1]);
        ModelMetadata { inputs: vec![spec("a"), spec("b")], outputs: vec![spec("y")] }
    }

    fn predict(request: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        if request.flag("pass")? {
            return models::get("matrix", None)?.call(&inputs);
        }
        let a = tensor::named(&inputs, "a")?;
        Ok(vec![a.renamed(&request.text("as")?.unwrap_or("y".into()))])
    }
}

hostler_plugin::export!(Sum: model, optional_inputs);

#[test]
fn predict_checks_inputs_and_outputs() {
    let host = Host::new().model("matrix", |_| Ok(vec![tensor::fp32("y", &[1, 1], &[1.0])?]));
    let x = |name: &str| tensor::fp32(name, &[1], &[1.0]).unwrap();
    let run = |names: &[&str]| predict::<Sum>(&host.request(), names.iter().map(|name| x(name)).collect());
    assert_eq!(run(&["a", "b"]).unwrap()[0].name(), "y");
    assert_eq!(message(run(&["a"])), "input \"b\" (FP32 [-1]) is missing");
    assert_eq!(message(run(&["a", "c"])), "no input \"c\"; inputs: \"a\", \"b\"");
    assert_eq!(message(run(&["a", "a"])), "input 'a' already exists in request");
    assert_eq!(predict_optional::<Sum>(&host.request(), vec![x("a")]).unwrap().len(), 1);
    let request = host.request().with_parameter("as", "z");
    assert_eq!(
        message(predict_optional::<Sum>(&request, vec![x("a")])),
        "the plugin returned the output \"z\" (FP32 [1]), which its metadata does not declare; declared: \"y\" (FP32 \
         [-1])"
    );
    // What another model returned may have any shape.
    let request = host.request().with_parameter("pass", true);
    assert_eq!(predict_optional::<Sum>(&request, vec![x("a")]).unwrap()[0].shape(), [1, 1]);
    let specs = [tensor::spec("s", Datatype::Fp32, &[])];
    assert!(check_outputs(&specs, &[tensor::fp32("s", &[1, 1], &[1.0]).unwrap()]).is_ok());
    assert_eq!(
        message(check_inputs(&specs, &[], &[tensor::fp32("s", &[2], &[1.0; 2]).unwrap()])),
        "input \"s\": expected shape [], got [2]"
    );
}

struct Text;

impl Transformer for Text {
    fn preprocess(request: &Request, input: Payload) -> Result<Vec<Tensor>, Error> {
        request.set_note(b"seen");
        let Payload::Json(text) = input else { return Err(Error::unsupported("send JSON")) };
        Ok(vec![tensor::bytes("text", &[1], &[text])?])
    }

    fn postprocess(request: &Request, outputs: Vec<Tensor>) -> Result<Payload, Error> {
        assert_eq!(request.note(), b"seen");
        let text = tensor::named(&outputs, "text")?.to_bytes()?.concat();
        Ok(Payload::Json(String::from_utf8(text).unwrap()))
    }
}

#[test]
fn transform_checks_what_goes_to_the_model_and_to_the_client() {
    let host = Host::new();
    let spec = |datatype| vec![tensor::spec("text", datatype, &[-1])];
    let metadata = |datatype| ModelMetadata { inputs: spec(datatype), outputs: spec(Datatype::Bytes) };
    let run = |text: &str, datatype| {
        let same = |inputs: &[Tensor]| Ok(vec![inputs[0].renamed("text")]);
        transform::<Text>(&host.request(), Payload::Json(text.into()), &metadata(datatype), same)
    };
    assert!(matches!(run("[1]", Datatype::Bytes), Ok(Payload::Json(text)) if text == "[1]"));
    assert_eq!(
        message(run("[1", Datatype::Bytes)),
        "postprocess returned what is not one JSON value: the error is at byte 2 of [1"
    );
    let error = run("[1]", Datatype::Fp32).unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::Failed, "preprocess: input \"text\": expected FP32, got BYTES")
    );
}
