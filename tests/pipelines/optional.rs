//! Tests models with optional inputs, in three languages, and steps that leave such inputs out.

use crate::support::pipelines::{setup, steppers};
use crate::support::{Setup, plugin};
use serde_json::json;

const LANGUAGES: [&str; 3] = ["rust", "optional-py", "optional-js"];

fn manifest() -> String {
    let mut text = steppers(&[("rust", "inputs = \"a,b\"\noptional = \"b\"")]);
    for name in &LANGUAGES[1..] {
        text += &format!("[plugins.{name}]\npath = \"{name}.wasm\"\n[models.{name}]\nplugin = \"{name}\"\n");
    }
    for name in LANGUAGES {
        text += &format!(
            "[models.p-{name}]\npipeline = \"p-{name}\"\n[pipelines.p-{name}]\noutputs = {{ r = \"s.y\" }}\n\
             [pipelines.p-{name}.steps.s]\nmodel = \"{name}\"\nin = {{ a = \"input.x\", b = \"input.z?\" }}\n"
        );
    }
    text
}

fn with_plugins(manifest: &str) -> Setup {
    let setup = setup(manifest);
    LANGUAGES[1..].iter().fold(setup, |setup, name| setup.file(&format!("{name}.wasm"), plugin(name)))
}

#[test]
fn an_input_that_may_be_left_out_is() {
    let host = with_plugins(&manifest()).start();
    for name in LANGUAGES {
        let whole = host.predict(name, json!({"a": [1, 2], "b": [10, 20]}));
        assert_eq!(whole.result(), json!({"y": [11.0, 22.0]}), "{name}");
        assert_eq!(host.predict(name, json!({"a": [1, 2]})).result(), json!({"y": [1.0, 2.0]}), "{name}");
        host.predict(name, json!({"b": [1]})).refused(400, "invalid_input", &["input \"a\""]);
        // As a step: a tensor that the client leaves out is left out of the call.
        let pipeline = format!("p-{name}");
        let ask = |data| host.predict(&pipeline, data).result();
        assert_eq!(ask(json!({"x": [1], "z": [5]})), json!({"r": [6.0]}), "{name}");
        assert_eq!(ask(json!({"x": [1]})), json!({"r": [1.0]}), "{name}");
    }
}

#[test]
fn a_name_that_is_no_input_is_refused_when_the_plugin_is_loaded() {
    let text = steppers(&[("rust", "inputs = \"a,b\"\noptional = \"bb\"")]);
    let (code, _, error) = setup(&text).run(&["check", "hostler.toml"]);
    assert_eq!(code, 1);
    assert!(
        error
            .contains("optional-inputs names \"bb\", which its metadata does not have (did you mean \"b\"?)"),
        "{error}"
    );
}
