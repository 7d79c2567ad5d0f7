//! Tests external data of ONNX models: it is found wherever a tensor can refer to it, checked and
//! copied, and the user's file is never read again.

use crate::support::{self, Setup, load, onnx, replace};
use onnx::{BOOL, FLOAT, INT64};
use serde_json::json;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;

type Models = Vec<(&'static str, Vec<u8>)>;

fn x() -> Vec<u8> {
    onnx::value("x", FLOAT, &[3])
}

fn y() -> Vec<u8> {
    onnx::value("y", FLOAT, &[3])
}

fn w(location: &str) -> Vec<u8> {
    onnx::external("W", FLOAT, &[3], location)
}

fn add(out: &str) -> Vec<u8> {
    onnx::node("Add", &["x", "W"], &[out], &[])
}

fn constant(tensor: &[u8]) -> Vec<u8> {
    onnx::node("Constant", &[], &["W"], &[onnx::tensor_attribute("value", tensor)])
}

/// Returns a model y = x + W with these fields in the main graph.
fn plus(fields: &[Vec<u8>]) -> Vec<u8> {
    onnx::model(&onnx::graph(fields, &[x()], &[y()]), &[])
}

/// Returns a model y = x + W where W is an initializer at this location.
fn initializer(location: &str) -> Vec<u8> {
    plus(&[add("y"), onnx::field(5, w(location))])
}

/// Returns an `If` that is always true; both branches have these fields and return x + W.
fn condition(input: &str, output: &str, fields: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let branch = |out: &str| {
        let sum = onnx::node("Add", &[input, "W"], &[out], &[]);
        onnx::graph(&[fields, &[sum]].concat(), &[], &[onnx::value(out, FLOAT, &[3])])
    };
    let always = onnx::tensor("c", BOOL, &[], &[1]);
    vec![
        onnx::node("Constant", &[], &["c"], &[onnx::tensor_attribute("value", &always)]),
        onnx::node(
            "If",
            &["c"],
            &[output],
            &[
                onnx::graph_attribute("then_branch", &branch("t")),
                onnx::graph_attribute("else_branch", &branch("e")),
            ],
        ),
    ]
}

fn in_a_loop() -> Vec<u8> {
    let body = onnx::graph(
        &[
            onnx::node("Add", &["acc", "W"], &["next"], &[]),
            onnx::node("Identity", &["go"], &["go_on"], &[]),
            onnx::field(5, w("w.bin")),
        ],
        &[onnx::value("i", INT64, &[]), onnx::value("go", BOOL, &[]), onnx::value("acc", FLOAT, &[3])],
        &[onnx::value("go_on", BOOL, &[]), onnx::value("next", FLOAT, &[3])],
    );
    plus(&[
        onnx::field(5, onnx::tensor("n", INT64, &[], &1_i64.to_le_bytes())),
        onnx::field(5, onnx::tensor("true", BOOL, &[], &[1])),
        onnx::node("Loop", &["n", "true", "x"], &["y"], &[onnx::graph_attribute("body", &body)]),
    ])
}

/// Returns a model y = F(x), where F has these nodes.
fn function(nodes: &[Vec<u8>]) -> Vec<u8> {
    let call = onnx::node("F", &["x"], &["y"], &[onnx::field(7, "own")]);
    // A node in a graph is field 1, whose content is the node's message.
    let bare: Vec<Vec<u8>> = nodes.iter().map(|node| node[header(node)..].to_vec()).collect();
    onnx::model(&onnx::graph(&[call], &[x()], &[y()]), &[onnx::function(&bare)])
}

/// Returns the number of bytes before the content of a field with a one-byte tag.
fn header(field: &[u8]) -> usize {
    2 + field[1..].iter().take_while(|byte| **byte >= 0x80).count()
}

fn sparse() -> [Vec<u8>; 2] {
    let indices = onnx::integers(&[0, 1, 2]);
    let here = onnx::tensor("W", FLOAT, &[3], &onnx::floats(&[1.0, 2.0, 3.0]));
    [
        onnx::sparse(&w("w.bin"), &onnx::tensor("Wi", INT64, &[3], &indices), 3),
        onnx::sparse(&here, &onnx::external("Wi", INT64, &[3], "indices.bin"), 3),
    ]
}

/// Returns one model for each place that a tensor can have; each returns x + [1, 2, 3] with data
/// from `w.bin`.
fn everywhere() -> Models {
    let in_branch = onnx::field(5, w("w.bin"));
    let [values, indices] = sparse();
    vec![
        ("initializer", initializer("w.bin")),
        ("dotted", initializer("./w.bin")),
        ("around", initializer("folder/../w.bin")),
        ("constant", plus(&[constant(&w("w.bin")), add("y")])),
        ("branch", plus(&condition("x", "y", std::slice::from_ref(&in_branch)))),
        ("branch-constant", plus(&condition("x", "y", &[constant(&w("w.bin"))]))),
        ("loop", in_a_loop()),
        ("function", function(&[constant(&w("w.bin")), onnx::node("Add", &["a", "W"], &["b"], &[])])),
        ("function-branch", function(&condition("a", "b", &[in_branch]))),
        ("sparse", plus(&[add("y"), onnx::field(15, values)])),
        ("sparse-indices", plus(&[add("y"), onnx::field(15, indices)])),
    ]
}

/// Returns a setup with the models in a subfolder, so that they are not in the host's working
/// folder.
fn setup(models: &Models, reload: &str) -> Setup {
    let tables = models.iter().map(|(name, _)| format!("[models.{name}]\npath = \"m/{name}.onnx\"\n"));
    let setup = Setup::new(&format!("{}[reload]\n{reload}", tables.collect::<String>()));
    for (name, model) in models {
        replace(&setup.path(&format!("m/{name}.onnx")), model);
    }
    replace(&setup.path("m/w.bin"), &onnx::floats(&[1.0, 2.0, 3.0]));
    replace(&setup.path("m/indices.bin"), &onnx::integers(&[0, 1, 2]));
    // Files that ONNX Runtime would read if it resolved a path by itself, in the working folder.
    replace(&setup.path("w.bin"), &onnx::floats(&[90.0, 90.0, 90.0]));
    replace(&setup.path("indices.bin"), &onnx::integers(&[1, 2, 0]));
    setup
}

/// Overwrites a file in place instead of replacing it.
fn overwrite(path: &Path, content: &[u8]) {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).expect("the file");
    file.write_all(content).expect("the content");
}

#[test]
fn weights_are_found_wherever_a_tensor_stands_and_are_watched() {
    let models = everywhere();
    let host = setup(&models, "").start();
    for (name, _) in &models {
        assert_eq!(host.predict(name, json!([0, 0, 0])).result(), json!({"y": [1.0, 2.0, 3.0]}), "{name}");
    }
    overwrite(&host.path("m/w.bin"), &onnx::floats(&[7.0, 8.0, 9.0]));
    let policy = host.wait_for_generation(2);
    let changes = policy["last_reload"]["changes"].as_array().unwrap();
    for (name, _) in models.iter().filter(|(name, _)| *name != "sparse-indices") {
        let line = format!("model \"{name}:1\": external.w.bin ");
        assert!(changes.iter().any(|change| change.as_str().unwrap().starts_with(&line)), "{changes:?}");
        assert_eq!(host.predict(name, json!([0, 0, 0])).result(), json!({"y": [7.0, 8.0, 9.0]}), "{name}");
    }
    overwrite(&host.path("m/indices.bin"), &onnx::integers(&[2, 1, 0]));
    host.wait_for_generation(3);
    assert_eq!(host.predict("sparse-indices", json!([0, 0, 0])).result(), json!({"y": [3.0, 2.0, 1.0]}));
}

#[test]
fn files_of_one_name_in_two_folders_are_told_apart() {
    let both = plus(&[
        onnx::node("Add", &["x", "W"], &["z"], &[]),
        onnx::node("Add", &["z", "V"], &["y"], &[]),
        onnx::field(5, w("a/w.bin")),
        onnx::field(5, onnx::external("V", FLOAT, &[3], "b/w.bin")),
    ]);
    let setup = setup(&vec![("m", both)], "");
    replace(&setup.path("m/a/w.bin"), &onnx::floats(&[1.0, 1.0, 1.0]));
    replace(&setup.path("m/b/w.bin"), &onnx::floats(&[2.0, 2.0, 2.0]));
    let host = setup.start();
    assert_eq!(host.predict("m", json!([0, 0, 0])).result(), json!({"y": [3.0, 3.0, 3.0]}));
    for (file, generation, sum) in [("m/a/w.bin", 2, 12.0), ("m/b/w.bin", 3, 20.0)] {
        replace(&host.path(file), &onnx::floats(&[10.0, 10.0, 10.0]));
        host.wait_for_generation(generation);
        assert_eq!(host.predict("m", json!([0, 0, 0])).result(), json!({"y": [sum, sum, sum]}));
    }
}

/// Rows of 4 KiB, so that each is on a page of its own.
const COLUMNS: usize = 1024;
const ROWS: usize = 1024;

fn table(value: f32) -> Vec<u8> {
    onnx::floats(&vec![value; ROWS * COLUMNS])
}

#[test]
fn no_change_of_the_file_in_place_reaches_a_live_model() {
    let rows = onnx::value("y", FLOAT, &[ROWS as u64, COLUMNS as u64]);
    let gather = |fields: &[Vec<u8>]| {
        let ids = onnx::value("x", INT64, &[ROWS as u64]);
        onnx::model(&onnx::graph(fields, &[ids], std::slice::from_ref(&rows)), &[])
    };
    let table_at = |location| onnx::external("W", FLOAT, &[ROWS as u64, COLUMNS as u64], location);
    let look_up = onnx::node("Gather", &["W", "x"], &["y"], &[]);
    let models = vec![
        ("initializer", gather(&[look_up.clone(), onnx::field(5, table_at("table.bin"))])),
        ("constant", gather(&[look_up, constant(&table_at("table.bin"))])),
    ];
    let setup = setup(&models, "mode = \"manual\"\n");
    replace(&setup.path("m/table.bin"), &table(1.0));
    let host = setup.start();
    let ids: Vec<usize> = (0..ROWS).collect();
    let body = |model: &str| {
        let outputs = json!([{"name": "y", "parameters": {"binary_data": true}}]);
        let input = json!({"name": "x", "datatype": "INT64", "shape": [ROWS], "data": ids});
        load::Shot {
            path: format!("/v2/models/{model}/infer"),
            body: json!({"inputs": [input], "outputs": outputs}).to_string().into_bytes(),
        }
    };
    let expected = onnx::floats(&[1.0]);
    let judge = move |answer: &support::Answer| {
        let ends_well = answer.status == 200 && answer.body.ends_with(&expected);
        let data = &answer.body[answer.body.len().saturating_sub(4 * ROWS * COLUMNS)..];
        let is_same = data.chunks_exact(4).all(|value| value == expected);
        (!ends_well || !is_same).then(|| format!("{} with other numbers", answer.status))
    };
    let loads =
        models.iter().map(|(name, _)| load::Load::start(host.http, 1, body(name), None, judge.clone()));
    let loads: Vec<load::Load> = loads.collect();
    let answered = || host.metric("hostler_requests_total{code=\"200\",model=\"constant\",version=\"1\"}");
    let file = host.path("m/table.bin");
    let steps: [&dyn Fn(); 6] = [
        &|| overwrite(&file, &table(2.0)),
        &|| drop(std::fs::OpenOptions::new().write(true).truncate(true).open(&file).unwrap()),
        &|| overwrite(&file, &table(3.0)[..ROWS * COLUMNS]),
        &|| std::fs::remove_file(&file).unwrap(),
        &|| replace(&file, b"short"),
        &|| replace(&file, &table(4.0)),
    ];
    for step in steps {
        step();
        // Waits until some requests have begun and ended after the change.
        let before = answered();
        support::eventually("more answers", || (answered() >= before + 3.0).then_some(()), || host.log());
    }
    for load in loads {
        let outcome = load.stop();
        assert!(outcome.answers > 0 && outcome.faults.is_empty(), "{:?}", &outcome.faults);
    }
    let policy = host.policy();
    assert_eq!((&policy["generation"], &policy["stale"]), (&json!(1), &json!(false)));
    assert_eq!(host.admin_post("/admin/reload").json()["outcome"], "applied");
    let answer = host.post("/v2/models/constant/infer", &body("constant").body);
    assert!(answer.body.ends_with(&onnx::floats(&[4.0])), "the reload brings what the file says now");
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn private_copies_go_with_the_load_and_those_of_a_dead_host_with_the_next() {
    let setup = setup(&everywhere(), "");
    let copies = setup.path("copies");
    let private = |name: &str| {
        let path = copies.join(name);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).unwrap();
        replace(&path.join("w.bin"), b"left behind");
    };
    private("hostler-data-0123456789abcdef");
    private("hostler-data-of-a-user");
    let host = setup.env("TMPDIR", copies.to_str().unwrap()).start();
    assert_eq!(entries(&copies), ["hostler-data-of-a-user"]);
    overwrite(&host.path("m/w.bin"), &onnx::floats(&[7.0, 8.0, 9.0]));
    host.wait_for_generation(2);
    assert_eq!(entries(&copies), ["hostler-data-of-a-user"]);
    replace(&host.path("m/w.bin"), b"short");
    host.wait_for_outcome("rejected");
    assert_eq!(entries(&copies), ["hostler-data-of-a-user"]);
}

#[test]
fn where_no_folder_can_be_written_weights_are_held_in_memory() {
    let nowhere = |setup: Setup| {
        setup.env("TMPDIR", "/proc/no-such-folder").env("HOSTLER_CACHE", "/proc/no-such-folder")
    };
    let plain = vec![("m", initializer("w.bin"))];
    let host = nowhere(setup(&plain, "")).start();
    host.wait_for_log(&["external data copied to memory", "/proc/no-such-folder"]);
    overwrite(&host.path("m/w.bin"), &onnx::floats(&[7.0, 8.0, 9.0]));
    host.wait_for_generation(2);
    assert_eq!(host.predict("m", json!([0, 0, 0])).result(), json!({"y": [7.0, 8.0, 9.0]}));

    for name in ["branch", "function", "sparse", "around"] {
        let models: Models = everywhere().into_iter().filter(|(other, _)| *other == name).collect();
        let (code, _, text) = nowhere(setup(&models, "")).run(&["check"]);
        assert_eq!(code, 1, "{name}");
        for part in [&format!("model \"{name}:1\""), "only from a folder", "set TMPDIR"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[test]
fn locations_that_are_no_file_beside_the_model_are_refused_with_the_tensor() {
    let entry =
        |key, value| plus(&[add("y"), onnx::field(5, [w("w.bin"), onnx::entry(key, value)].concat())]);
    let long = "x".repeat(300);
    for (model, parts) in [
        (initializer("../w.bin"), ["tensor \"W\"", "\"../w.bin\" leaves the model's folder"]),
        (initializer("a/../../w.bin"), ["tensor \"W\"", "leaves the model's folder"]),
        (initializer("/etc/hostname"), ["tensor \"W\"", "is not relative to the model's folder"]),
        (initializer(""), ["tensor \"W\"", "has no location"]),
        (initializer("."), ["tensor \"W\"", "names a folder"]),
        (initializer("m.onnx"), ["tensor \"W\"", "is the model itself"]),
        (initializer("*/_ORT_MEM_ADDR_/*"), ["tensor \"W\"", "reserved by ONNX Runtime"]),
        (initializer("folder"), ["external data", "folder"]),
        (initializer("pipe"), ["external data", "pipe"]),
        (initializer("device"), ["external data", "device"]),
        (initializer("loop"), ["external data", "loop"]),
        (initializer("absent.bin"), ["external data", "absent.bin"]),
        (initializer(&long), ["external data", "too long"]),
        (entry("location", "indices.bin"), ["tensor \"W\"", "a key twice"]),
        (entry("offset", "4"), ["tensor \"W\"", "ONNX Runtime cannot load it"]),
        (entry("offset", "13"), ["tensor \"W\"", "needs 13 bytes of w.bin, which has 12"]),
        (entry("length", "16"), ["tensor \"W\"", "needs 16 bytes of w.bin, which has 12"]),
        (entry("offset", "-4"), ["tensor \"W\"", "not a whole number"]),
        (entry("offset", "9223372036854775807"), ["tensor \"W\"", "bytes of w.bin, which has 12"]),
        (function(&[constant(&w("../w.bin"))]), ["tensor \"W\"", "leaves the model's folder"]),
    ] {
        let setup = setup(&vec![("m", model)], "");
        std::fs::create_dir(setup.path("m/folder")).unwrap();
        symlink("/dev/zero", setup.path("m/device")).unwrap();
        symlink("loop", setup.path("m/loop")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(setup.path("m/pipe")).status().unwrap();
        assert!(made.success());
        let (code, out, text) = setup.run(&["check"]);
        assert_eq!(code, 1, "{parts:?}: {out}{text}");
        assert!(text.contains("model \"m:1\""), "{text}");
        let (tensor, why) = (parts[0], parts[1]);
        assert!(text.contains(why), "{text}\nlacks {why}");
        assert!(text.contains(tensor) || why.starts_with("ONNX"), "{text}\nlacks {tensor}");
    }
}

#[test]
fn names_that_are_unusual_and_links_are_served() {
    let models = vec![("m", initializer("tief/gewichte ☃.bin")), ("link", initializer("linked.bin"))];
    let setup = setup(&models, "");
    replace(&setup.path("m/tief/gewichte ☃.bin"), &onnx::floats(&[1.0, 2.0, 3.0]));
    replace(&setup.path("blobs/b1"), &onnx::floats(&[4.0, 5.0, 6.0]));
    symlink("../blobs/b1", setup.path("m/linked.bin")).unwrap();
    let host = setup.start();
    assert_eq!(host.predict("m", json!([0, 0, 0])).result(), json!({"y": [1.0, 2.0, 3.0]}));
    assert_eq!(host.predict("link", json!([0, 0, 0])).result(), json!({"y": [4.0, 5.0, 6.0]}));
    overwrite(&host.path("blobs/b1"), &onnx::floats(&[7.0, 8.0, 9.0]));
    host.wait_for_generation(2);
    assert_eq!(host.predict("link", json!([0, 0, 0])).result(), json!({"y": [7.0, 8.0, 9.0]}));
}

fn digest(path: &Path) -> String {
    let out = std::process::Command::new("sha256sum").arg(path).output().expect("sha256sum runs");
    String::from_utf8_lossy(&out.stdout)[..64].to_owned()
}

#[test]
fn a_pin_covers_the_weights_too() {
    let models = vec![("m", initializer("./w.bin"))];
    let setup = setup(&models, "quiet_ms = 20\n");
    let table = |model: &str, data: &str| {
        format!("[models.m]\npath = \"m/m.onnx\"\nsha256 = \"{model}\"\n{data}\n[reload]\nquiet_ms = 20\n")
    };
    let write = |setup: &Setup, text: &str| replace(&setup.path("hostler.toml"), text.as_bytes());
    let model = digest(&setup.path("m/m.onnx"));
    let data = digest(&setup.path("m/w.bin"));
    write(&setup, &table(&model, ""));
    let (code, _, text) = setup.run(&["check", "--quick"]);
    let hint = format!("data_sha256 = {{ \"w.bin\" = \"{data}\" }}");
    assert!(code == 1 && text.contains("is pinned, and its external data \"w.bin\" is not"), "{text}");
    assert!(text.contains(&hint), "{text}");
    for (keys, part) in [
        ("data_sha256 = { \"w.bin\" = \"abc\" }", "not a digest of 64 hexadecimal digits"),
        ("data_sha256 = { \"v.bin\" = \"\" }", "did you mean \"w.bin\"?"),
    ] {
        write(&setup, &table(&model, keys));
        let (code, _, text) = setup.run(&["check", "--quick"]);
        assert!(code == 1 && text.contains(part), "{text}");
    }
    write(&setup, &table(&model, &hint));
    let host = setup.start();
    replace(&host.path("m/w.bin"), &onnx::floats(&[7.0, 8.0, 9.0]));
    let policy = host.wait_for_outcome("pending");
    assert!(policy["last_reload"]["errors"][0].as_str().unwrap().contains("w.bin has sha256"), "{policy}");
    assert_eq!(host.predict("m", json!([0, 0, 0])).result(), json!({"y": [1.0, 2.0, 3.0]}));
    let new = digest(&host.path("m/w.bin"));
    write(&host.setup, &table(&model, &hint.replace(&data, &new)));
    host.wait_for_generation(2);
    assert_eq!(host.predict("m", json!([0, 0, 0])).result(), json!({"y": [7.0, 8.0, 9.0]}));
    // While the model's own digest does not match, digests of its data are not required.
    write(&host.setup, &table(&data, ""));
    host.wait_for_outcome("pending");
}

#[test]
fn prepacked_weights_of_a_file_are_not_trusted() {
    // The entry points far beyond the end of the file; ONNX Runtime would map and use it.
    let matrix = onnx::external("W", FLOAT, &[3, 3], "matrix.bin");
    let packed = onnx::entry("prepacked_0", "MatMul+x+W|4096;4096;0");
    let product = onnx::node("MatMul", &["x", "W"], &["y"], &[]);
    let model = plus(&[product, onnx::field(5, [matrix, packed].concat())]);
    let setup = setup(&vec![("m", model)], "");
    replace(&setup.path("m/matrix.bin"), &onnx::floats(&[1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 3.0]));
    let host = setup.start();
    assert_eq!(host.predict("m", json!([1, 1, 1])).result(), json!({"y": [1.0, 2.0, 3.0]}));
}

#[test]
fn hostile_models_end_in_a_refusal() {
    let mut nested = onnx::field(5, w("w.bin"));
    for _ in 0..5_000 {
        nested = onnx::field(1, onnx::field(5, onnx::field(6, &nested)));
    }
    let many: Vec<Vec<u8>> = (0..70_000).map(|n| onnx::field(5, w(&format!("{n}.bin")))).collect();
    for (model, part) in [
        (onnx::model(&nested, &[]), "nested more than 100 deep"),
        (plus(&many), "more than 65536 files with external data"),
    ] {
        let (code, _, text) = setup(&vec![("m", model)], "").run(&["check", "--quick"]);
        assert!(code == 1 && text.contains(part), "{text}");
    }
}
