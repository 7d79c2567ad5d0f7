//! Generates Rust code from `host/proto/inference.proto`, without `protoc` or a C++ compiler, and
//! the lists of files that the program carries: for authors of plugins, and of the page for operators.

use prost::Message;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    embed()?;
    embed_page()?;
    println!("cargo:rerun-if-changed=host/proto/inference.proto");
    let files = protox::compile(["inference.proto"], ["host/proto"])?;

    // The description of the service that reflection returns to clients.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut described = files.clone();
    for file in &mut described.file {
        file.source_code_info = None;
    }
    std::fs::write(out.join("inference.bin"), described.encode_to_vec())?;

    let mut shapes = Shapes::default();
    for file in &files.file {
        for message in &file.message_type {
            shapes.add(&format!(".{}", file.package()), message);
        }
    }
    std::fs::write(out.join("shapes.rs"), shapes.source())?;

    tonic_prost_build::configure()
        // Tensor contents are slices of the received message.
        .bytes(".")
        // Parameters have a stable order, and an empty map costs nothing.
        .btree_map(".")
        .use_arc_self(true)
        // The host handles `ModelInfer` separately, so the service does not implement it.
        .generate_default_stubs(true)
        // Computes the memory that a message would take before it is decoded.
        .codec_path("crate::proto::codec::BoundedCodec")
        .compile_fds(files)?;
    Ok(())
}

/// Folders of `sdk/` that are embedded.
const EMBEDDED: [&str; 6] = ["rust", "python", "js", "go", "c", "templates"];

/// Entries that are not part of an SDK: tests of this repository, and what tools leave behind.
const OMITTED: [&str; 6] = ["tests", "node_modules", "__pycache__", "target", "dist", "package-lock.json"];

/// Writes `embedded.rs`: the files of the SDKs and the templates.
fn embed() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=sdk");
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("sdk");
    let mut files = Vec::new();
    for folder in EMBEDDED {
        list(&root.join(folder), folder == "templates", &mut files)?;
    }
    files.sort();
    let mut source = String::from("static FILES: &[EmbeddedFile] = &[\n");
    for path in files {
        let name = path.strip_prefix(&root)?.display().to_string();
        writeln!(
            source,
            "EmbeddedFile {{ path: {name:?}, content: include_bytes!({:?}) }},",
            path.display().to_string()
        )?;
    }
    source.push_str("];\n");
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("embedded.rs"), source)?;
    Ok(())
}

/// Writes `page.rs`: the files of the page for operators.
fn embed_page() -> Result<(), Box<dyn std::error::Error>> {
    const FOLDER: &str = "host/server/ui/page";
    println!("cargo:rerun-if-changed={FOLDER}");
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join(FOLDER);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        let name = path.file_name().ok_or("a file has a name")?.to_string_lossy().into_owned();
        // Editors leave other files behind.
        if !name.starts_with('.') && [".html", ".css", ".js", ".svg"].iter().any(|end| name.ends_with(end)) {
            files.push((name, path));
        }
    }
    files.sort();
    let mut source = String::from("const CONTENTS: &[(&str, &[u8])] = &[\n");
    for (name, path) in files {
        writeln!(source, "({name:?}, include_bytes!({:?})),", path.display().to_string())?;
    }
    source.push_str("];\n");
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("page.rs"), source)?;
    Ok(())
}

/// Lists the files below a folder. The projects of templates have tests of their own.
fn list(folder: &std::path::Path, is_template: bool, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_omitted = OMITTED.contains(&name.as_str()) || name.starts_with('.') || name.ends_with(".egg-info")
            // What setuptools leaves behind; the JavaScript SDK has a folder of that name.
            || name == "build" && folder.ends_with("python");
        match entry.path() {
            _ if is_omitted && !(is_template && name == "tests") => {}
            path if path.is_dir() => list(&path, is_template, files)?,
            path => files.push(path),
        }
    }
    Ok(())
}

/// A field. `kind` is the number that `descriptor.proto` has for its type.
struct Field {
    number: i32,
    kind: i32,
    repeated: bool,
    type_name: String,
}

const FLOAT_64: [i32; 3] = [1, 6, 16];
const FLOAT_32: [i32; 3] = [2, 7, 15];
const INTEGER_64: [i32; 3] = [3, 4, 18];
const BOOL: i32 = 8;
const STRING: i32 = 9;
const MESSAGE: i32 = 11;
const BYTES: i32 = 12;
const REPEATED: i32 = 3;

/// Messages by full name, each with its fields and whether it is an entry of a map.
#[derive(Default)]
struct Shapes(BTreeMap<String, (Vec<Field>, bool)>);

impl Shapes {
    fn add(&mut self, scope: &str, message: &protox::prost_reflect::prost_types::DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        let field = |field: &protox::prost_reflect::prost_types::FieldDescriptorProto| Field {
            number: field.number(),
            kind: field.r#type.unwrap_or_default(),
            repeated: field.label == Some(REPEATED),
            type_name: field.type_name().to_owned(),
        };
        let is_entry = message
            .options
            .as_ref()
            .is_some_and(protox::prost_reflect::prost_types::MessageOptions::map_entry);
        for nested in &message.nested_type {
            self.add(&name, nested);
        }
        self.0.insert(name, (message.field.iter().map(field).collect(), is_entry));
    }

    /// Returns the size of a message in Rust in bytes: an estimate that is rather too large than
    /// too small.
    fn size(&self, message: &str) -> usize {
        let size = |field: &Field| match field.kind {
            _ if field.repeated => 24,
            STRING => 24,
            BYTES => 32,
            MESSAGE => 8 + self.size(&field.type_name),
            _ => 8,
        };
        8 + self.0[message].0.iter().map(size).sum::<usize>()
    }

    fn field(&self, field: &Field) -> Option<String> {
        let shape = constant(&field.type_name);
        Some(match (field.kind, field.repeated) {
            (MESSAGE, true) if self.0[&field.type_name].1 => format!("Map(&{shape})"),
            (MESSAGE, true) => format!("Many(&{shape})"),
            (MESSAGE, false) => format!("One(&{shape})"),
            (STRING, true) => "Texts".to_owned(),
            (STRING, false) => "Text".to_owned(),
            (BYTES, true) => "Slices".to_owned(),
            (_, false) => return None,
            (kind, true) if FLOAT_64.contains(&kind) => "Fixed(8)".to_owned(),
            (kind, true) if FLOAT_32.contains(&kind) => "Fixed(4)".to_owned(),
            (kind, true) if INTEGER_64.contains(&kind) => "Varints(8)".to_owned(),
            (BOOL, true) => "Varints(1)".to_owned(),
            (_, true) => "Varints(4)".to_owned(),
        })
    }

    fn source(&self) -> String {
        let mut source = String::from("use super::growth::{Field, Shape, Shaped};\n");
        for (name, (fields, _)) in &self.0 {
            let constant = constant(name);
            let fields = fields.iter().filter_map(|field| Some((field.number, self.field(field)?)));
            let fields: String =
                fields.map(|(number, field)| format!("({number}, Field::{field}), ")).collect();
            let size = self.size(name);
            let shape = format!("Shape {{ size: {size}, fields: &[{fields}] }}");
            let _ = writeln!(source, "pub static {constant}: Shape = {shape};");
            // Only top-level messages are sent alone.
            if let [_, _, message] = name.split('.').collect::<Vec<_>>()[..] {
                let _ = writeln!(
                    source,
                    "impl Shaped for super::inference::{message} {{ const SHAPE: &'static Shape = &{constant}; }}"
                );
            }
        }
        // Requests, inputs and outputs have the same parameters.
        let _ = writeln!(
            source,
            "pub static INFER_PARAMETERS_ENTRY: &Shape = &{};",
            constant(".inference.ModelInferRequest.ParametersEntry")
        );
        source
    }
}

/// Returns the name of a message's constant: `INFERENCE_A_BENTRY` for `.inference.A.BEntry`.
fn constant(message: &str) -> String {
    message.trim_start_matches('.').replace('.', "_").to_uppercase()
}
