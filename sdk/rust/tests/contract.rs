//! The stand-in has every function, case and field of the contract, so a test that compiles with it
//! also compiles for a component.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::path::Path;

/// What one interface contains: names of functions by resource (`""` for those of the interface),
/// and names of cases and fields by type.
#[derive(Debug, Default)]
struct Interface {
    functions: Vec<(String, String)>,
    members: Vec<(String, String)>,
}

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads the interfaces of a WIT file by their names.
fn interfaces(wit: &str) -> BTreeMap<String, Interface> {
    let mut found = BTreeMap::new();
    let (mut interface, mut block) = (None::<(String, Interface)>, None::<(String, String)>);
    for line in wit.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] | ["///", ..] | ["use" | "include" | "import" | "export" | "package", ..] => {}
            ["interface", name, "{"] => interface = Some((name.into(), Interface::default())),
            [kind @ ("record" | "enum" | "variant" | "resource"), name, "{"] => {
                block = Some((kind.into(), name.into()));
            }
            [kind @ "variant", name, "{", ..] => {
                // All cases on one line: `variant error { upstream(string), io(string) }`.
                let cases = line.split(['{', '}']).nth(1).unwrap_or_default().split(',');
                let (_, content) = interface.as_mut().expect("a type belongs to an interface");
                for case in cases {
                    content.members.push((kind.into(), member(name, case)));
                }
            }
            ["enum", name, "{", ..] => {
                let cases = line.split(['{', '}']).nth(1).unwrap_or_default().split(',');
                let (_, content) = interface.as_mut().expect("a type belongs to an interface");
                for case in cases {
                    content.members.push(("enum".into(), member(name, case)));
                }
            }
            ["}"] if block.is_some() => block = None,
            ["}"] => {
                if let Some((name, content)) = interface.take() {
                    found.insert(name, content);
                }
            }
            [name, ..] => {
                let Some((_, content)) = &mut interface else { continue };
                match &block {
                    _ if line.contains("func(") => {
                        let resource = block.as_ref().map(|(_, name)| pascal(name)).unwrap_or_default();
                        content.functions.push((resource, snake(name.trim_end_matches(':'))));
                    }
                    Some((kind, owner)) => content.members.push((kind.clone(), member(owner, line))),
                    None => {}
                }
            }
        }
    }
    found
}

/// `Owner.name` of a case or a field.
fn member(owner: &str, line: &str) -> String {
    let name = line.trim().trim_start_matches('%').split([':', '(', ',']).next().unwrap_or_default();
    format!("{}.{name}", pascal(owner))
}

fn snake(name: &str) -> String {
    name.replace('-', "_")
}

fn pascal(name: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('-').map(capital).collect()
}

/// Returns the blocks that begin with one of these lines, up to the brace that closes them.
fn blocks(code: &str, begins: &[String]) -> String {
    let mut found = String::new();
    let mut is_inside = false;
    for line in code.lines() {
        is_inside |= begins.iter().any(|begin| line.starts_with(begin.as_str()));
        if is_inside {
            found += line;
            found.push('\n');
        }
        is_inside &= line != "}";
    }
    found
}

/// Names what `code` lacks of an interface.
fn lacks(name: &str, interface: &Interface, code: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (resource, function) in &interface.functions {
        let (indent, within) = match resource.as_str() {
            "" => ("", code.to_owned()),
            resource => ("    ", blocks(code, &[format!("impl {resource} {{")])),
        };
        let is_there = ["pub fn", "pub async fn"]
            .iter()
            .any(|fn_| within.lines().any(|line| line.starts_with(&format!("{indent}{fn_} {function}("))));
        if !is_there {
            faults.push(format!("{name}: {resource} has no function {function}"));
        }
    }
    for (kind, member) in &interface.members {
        let (owner, item) = member.split_once('.').unwrap();
        let (declaration, wanted) = match kind.as_str() {
            "record" => ("struct", format!("    pub {}:", snake(item))),
            _ => ("enum", format!("    {}", pascal(item))),
        };
        let within = blocks(code, &[format!("pub {declaration} {owner} {{")]);
        let matches = |line: &str| {
            line.strip_prefix(&wanted).is_some_and(|rest| kind == "record" || rest.starts_with([',', '(']))
        };
        if !within.lines().any(matches) {
            faults.push(format!("{name}: {owner} has no member {item}"));
        }
    }
    faults
}

/// Where the stand-in has the functions of an interface that a plugin imports.
const IMPORTS: [(&str, &str, &str); 13] = [
    ("wit/hostler.wit", "types", "types"),
    ("wit/hostler.wit", "assets", "assets"),
    ("wit/hostler.wit", "callables", "callables"),
    ("wit/hostler.wit", "models", "models"),
    ("wit/hostler.wit", "state", "state"),
    ("wit/hostler.wit", "metrics", "metrics"),
    ("wit/hostler.wit", "http-types", "http_types"),
    ("wit/hostler.wit", "http", "http"),
    ("wit/async/concurrent.wit", "sinks", "sinks"),
    ("wit/async/concurrent.wit", "clock", "clock"),
    ("wit/async/concurrent.wit", "models", "streaming_models"),
    ("wit/async/concurrent.wit", "http", "concurrent_http"),
    ("wit/deps/config/store.wit", "store", "store"),
];

/// Which trait has the functions of an interface that a plugin exports.
const EXPORTS: [(&str, &str, &str, &str); 5] = [
    ("wit/hostler.wit", "transformer", "src/role.rs", "Transformer"),
    ("wit/hostler.wit", "model", "src/role.rs", "Model"),
    ("wit/hostler.wit", "optional-inputs", "src/role.rs", "OptionalInputs"),
    ("wit/hostler.wit", "executor", "src/role.rs", "Executor"),
    ("wit/async/concurrent.wit", "streaming-model", "src/concurrent.rs", "StreamingModel"),
];

#[test]
fn the_stand_in_has_each_function_case_and_field_of_the_contract() {
    let mut faults = Vec::new();
    let logging = ("wit/deps/logging/logging.wit", "logging", "logging");
    for (file, name, module) in IMPORTS.into_iter().chain([logging]) {
        let interface = interfaces(&text(file)).remove(name).unwrap_or_else(|| panic!("{file} lacks {name}"));
        assert!(!interface.functions.is_empty() || !interface.members.is_empty(), "{file}: {name} is empty");
        let code = text(&format!("src/bindings/stand_in/{module}.rs"));
        faults.extend(lacks(&format!("{file}: {name}"), &interface, &code));
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn each_role_is_a_trait_with_its_functions() {
    let mut faults = Vec::new();
    for (file, name, source, role) in EXPORTS {
        let interface = interfaces(&text(file)).remove(name).unwrap_or_else(|| panic!("{file} lacks {name}"));
        let code = blocks(&text(source), &[format!("pub trait {role} {{")]);
        for (_, function) in &interface.functions {
            if !code.contains(&format!("fn {function}(")) {
                faults.push(format!("{role} has no function {function}"));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    // The one record of an interface that plugins export.
    let record = interfaces(&text("wit/async/concurrent.wit")).remove("streaming-model").unwrap();
    let record = Interface { functions: Vec::new(), ..record };
    assert_eq!(record.members.len(), 3);
    let code = text("src/bindings/stand_in/types.rs");
    assert_eq!(lacks("streaming-model", &record, &code), Vec::<String>::new());
}

#[test]
fn no_interface_of_the_contract_is_left_out() {
    let known = |file: &str, name: &str| {
        IMPORTS.iter().any(|import| (import.0, import.1) == (file, name))
            || EXPORTS.iter().any(|export| (export.0, export.1) == (file, name))
    };
    for file in ["wit/hostler.wit", "wit/async/concurrent.wit"] {
        for name in interfaces(&text(file)).keys() {
            assert!(known(file, name), "{file}: the interface {name} is not in this test");
        }
    }
}

#[test]
fn the_comparison_sees_what_is_missing() {
    let wit = "interface thing {\n  enum kind {\n    %one,\n    two-three,\n  }\n  resource box {\n    open-it: func();\n  }\n  close: async func();\n}";
    let interface = interfaces(wit).remove("thing").unwrap();
    let whole = "pub enum Kind {\n    One,\n    TwoThree,\n}\nimpl Box {\n    pub fn open_it(&self) {\n    }\n}\npub async fn close() {\n}\n";
    assert_eq!(lacks("thing", &interface, whole), Vec::<String>::new());
    assert_eq!(
        lacks("thing", &interface, "pub enum Kind {\n    One,\n}\npub fn open_it() {\n}\n"),
        [
            "thing: Box has no function open_it",
            "thing:  has no function close",
            "thing: Kind has no member two-three"
        ]
    );
}
