//! Finds the files beside an ONNX model that hold its weights, which ONNX calls external data.
//!
//! A tensor names its file by a location relative to the model's folder. Such tensors occur in
//! graphs, in the graphs within their nodes, in model-local functions, in attributes, in sparse
//! tensors and in training information. The scan finds them in all of these places and keeps no
//! weights. It bounds its depth and the number of files, because the model may come from anywhere.

use crate::proto::wire::{Fields, Malformed, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// How deep messages may be nested. The protobuf library of ONNX Runtime has the same limit.
const DEPTH_MAX: usize = 100;

/// The most files of one model.
const FILES_MAX: usize = 1 << 16;

/// The most bytes of a location. No path can have more.
const LOCATION_BYTES_MAX: usize = 4095;

/// What a model says about its external data.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ExternalData<'a> {
    /// Files by their path relative to the model's folder, without `.` and `..`.
    pub files: BTreeMap<PathBuf, DataFile<'a>>,
    /// Places in the model's bytes that describe weights packed for one kind of processor. ONNX
    /// Runtime would use these without a check.
    pub prepacked: Vec<Range<usize>>,
    /// Whether a tensor is not among the main graph's initializers.
    pub is_nested: bool,
}

/// A file with external data.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DataFile<'a> {
    /// The location in every spelling that tensors use.
    pub spellings: BTreeSet<&'a [u8]>,
    /// The size that the file must have for its tensors, as far as they specify it.
    pub bytes_min: u64,
    /// The tensor that needs the last of these bytes.
    pub tensor: String,
}

impl DataFile<'_> {
    /// Returns the folders that its spellings pass through: `a/../w` names `w`, but only if `a`
    /// exists.
    pub fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.spellings.iter().flat_map(|spelling| {
            let mut path = PathBuf::new();
            let mut folders = Vec::new();
            let mut parts = Path::new(OsStr::from_bytes(spelling)).components().peekable();
            while let Some(part) = parts.next() {
                match part {
                    Component::Normal(name) => path.push(name),
                    _ => drop(path.pop()),
                }
                if parts.peek().is_some() && !path.as_os_str().is_empty() {
                    folders.push(path.clone());
                }
            }
            folders
        })
    }
}

/// Why the external data of a file is not known.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file is no ONNX model in protobuf, or has a form that no exporter writes.
    Unreadable,
    /// A tensor's data cannot be served. The text names the tensor and says why.
    Refused(String),
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Fault::Unreadable
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unreadable => f.write_str("it cannot be read as an ONNX model"),
            Fault::Refused(why) => f.write_str(why),
        }
    }
}

/// The messages of ONNX's schema that can contain tensors.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

impl Kind {
    /// Returns the kind of an inner message, if it can contain tensors.
    fn inner(self, field: u32) -> Option<Kind> {
        Some(match (self, field) {
            (Kind::Model, 7) | (Kind::Training, 1 | 2) | (Kind::Attribute, 6 | 11) => Kind::Graph,
            (Kind::Model, 20) => Kind::Training,
            (Kind::Model, 25) => Kind::Function,
            (Kind::Function, 7) | (Kind::Graph, 1) => Kind::Node,
            (Kind::Function, 11) | (Kind::Node, 5) => Kind::Attribute,
            (Kind::Graph, 15) | (Kind::Attribute, 22 | 23) => Kind::Sparse,
            (Kind::Graph, 5) | (Kind::Attribute, 5 | 10) | (Kind::Sparse, 1 | 2) => Kind::Tensor,
            _ => return None,
        })
    }

    /// Whether protobuf merges a second field of this number with the first one, so that a tensor
    /// could be split between both.
    fn is_single(self, field: u32) -> bool {
        matches!((self, field), (Kind::Attribute, 5 | 22) | (Kind::Sparse, 1 | 2))
    }
}

/// Finds the external data of a model. A file in the `.ort` format has none.
pub fn scan(model: &[u8]) -> Result<ExternalData<'_>, Fault> {
    let mut scan = Scan { model, found: ExternalData::default(), spellings: 0 };
    if model.get(4..8) != Some(b"ORTM") {
        scan.message(Kind::Model, model, 1)?;
    }
    Ok(scan.found)
}

struct Scan<'a> {
    model: &'a [u8],
    found: ExternalData<'a>,
    /// The number of spellings of all locations.
    spellings: usize,
}

impl<'a> Scan<'a> {
    fn message(&mut self, kind: Kind, message: &'a [u8], depth: usize) -> Result<(), Fault> {
        if depth > DEPTH_MAX {
            let why = format!("its messages are nested more than {DEPTH_MAX} deep, which is not supported");
            return Err(Fault::Refused(why));
        }
        if kind == Kind::Tensor {
            // Level 3 is an initializer: model, graph, tensor.
            return self.tensor(message, depth > 3);
        }
        let mut singles = 0_u32;
        for field in Fields::of(message) {
            let (number, Value::Bytes(inner)) = field? else { continue };
            let Some(inner_kind) = kind.inner(number) else { continue };
            if kind.is_single(number) {
                if singles & 1 << number != 0 {
                    return Err(Fault::Unreadable);
                }
                singles |= 1 << number;
            }
            self.message(inner_kind, inner, depth + 1)?;
        }
        Ok(())
    }

    fn tensor(&mut self, message: &'a [u8], is_nested: bool) -> Result<(), Fault> {
        let (mut name, mut is_external) = (&b""[..], false);
        let mut entries = Entries::default();
        for field in Fields::of(message) {
            match field? {
                (8, Value::Bytes(text)) => name = text,
                (13, Value::Bytes(entry)) => entries.read(entry)?,
                // An enumeration uses the lower half of the number, and the schema defines 0 and 1.
                (14, Value::Varint(number)) => match number as i32 {
                    0 => is_external = false,
                    1 => is_external = true,
                    _ => {}
                },
                _ => {}
            }
        }
        // Without this flag the entries have no meaning.
        if !is_external {
            return Ok(());
        }
        let named = |why: String| {
            let name: String = String::from_utf8_lossy(name).chars().take(80).collect();
            Fault::Refused(format!("tensor {name:?}: {why}"))
        };
        self.add(&entries, name, is_nested).map_err(named)
    }

    fn add(&mut self, entries: &Entries<'a>, name: &[u8], is_nested: bool) -> Result<(), String> {
        if entries.is_ambiguous {
            return Err("its external data has a key twice".into());
        }
        let location = entries.location.unwrap_or_default();
        let path = relative(location)?;
        let number = |key: &str, text: Option<&[u8]>| match text.unwrap_or_default() {
            b"" => Ok(0),
            text => {
                let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
                parsed.ok_or_else(|| format!("its {key} {} is not a whole number from 0", shown(text)))
            }
        };
        let (offset, length) = (number("offset", entries.offset)?, number("length", entries.length)?);
        let end = offset.checked_add(length).filter(|&end| i64::try_from(end).is_ok());
        let end = end.ok_or("its offset and length are too large")?;
        self.found.is_nested |= is_nested;
        for text in &entries.prepacked {
            let start = text.as_ptr() as usize - self.model.as_ptr() as usize;
            self.found.prepacked.push(start..start + text.len());
        }
        let file = self.found.files.entry(path).or_default();
        self.spellings += usize::from(file.spellings.insert(location));
        if end >= file.bytes_min {
            file.bytes_min = end;
            file.tensor = String::from_utf8_lossy(name).chars().take(80).collect();
        }
        if self.spellings.max(self.found.prepacked.len()) > FILES_MAX {
            return Err(format!("the model has more than {FILES_MAX} files with external data"));
        }
        Ok(())
    }
}

/// The values of a tensor's external data.
#[derive(Default)]
struct Entries<'a> {
    location: Option<&'a [u8]>,
    offset: Option<&'a [u8]>,
    length: Option<&'a [u8]>,
    prepacked: Vec<&'a [u8]>,
    is_ambiguous: bool,
}

impl<'a> Entries<'a> {
    fn read(&mut self, entry: &'a [u8]) -> Result<(), Malformed> {
        let (mut key, mut value) = (&b""[..], &b""[..]);
        for field in Fields::of(entry) {
            match field? {
                (1, Value::Bytes(text)) => key = text,
                (2, Value::Bytes(text)) => value = text,
                _ => {}
            }
        }
        let known = match key {
            b"location" => &mut self.location,
            b"offset" => &mut self.offset,
            b"length" => &mut self.length,
            _ => {
                if key.starts_with(b"prepacked") {
                    self.prepacked.push(value);
                }
                return Ok(());
            }
        };
        self.is_ambiguous |= known.replace(value).is_some();
        Ok(())
    }
}

/// Returns a location as a path relative to the model's folder. `a/../b` is `b`, even if `a` is a
/// link or does not exist.
fn relative(location: &[u8]) -> Result<PathBuf, String> {
    let refused = |why: &str| Err(format!("its location {} {why}", shown(location)));
    if location.is_empty() {
        return Err("its external data has no location".into());
    }
    if location.contains(&0) {
        return refused("has a NUL byte");
    }
    if location.len() > LOCATION_BYTES_MAX {
        return refused("is longer than a path can be");
    }
    // ONNX Runtime uses this to mark weights that are already in memory.
    if location.windows(10).any(|part| part == b"_MEM_ADDR_") {
        return refused("is reserved by ONNX Runtime");
    }
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(location)).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir if path.pop() => {}
            Component::ParentDir => {
                return refused("leaves the model's folder; put the file beside the model");
            }
            Component::RootDir | Component::Prefix(_) => {
                return refused("is not relative to the model's folder; put the file beside the model");
            }
        }
    }
    let is_folder = [&b"/"[..], b"/.", b"/.."].iter().any(|end| location.ends_with(end));
    if path.as_os_str().is_empty() || is_folder {
        return refused("names a folder, not a file");
    }
    Ok(path)
}

fn shown(text: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(text).chars().take(200).collect();
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a field with an inner message, a string or bytes.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = varint(u64::from(number) << 3 | 2);
        out.extend(varint(content.len() as u64));
        out.extend(content);
        out
    }

    fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }

    fn entry(key: &str, value: &[u8]) -> Vec<u8> {
        field(13, &[field(1, key.as_bytes()), field(2, value)].concat())
    }

    const EXTERNAL: [u8; 2] = [14 << 3, 1];

    fn tensor(location: &[u8], rest: &[Vec<u8>]) -> Vec<u8> {
        [field(8, b"W"), EXTERNAL.to_vec(), entry("location", location), rest.concat()].concat()
    }

    /// Returns a model with a tensor in the initializers of the main graph.
    fn model(tensor: &[u8]) -> Vec<u8> {
        field(7, &field(5, tensor))
    }

    fn refusal(model: &[u8]) -> String {
        match scan(model) {
            Err(Fault::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tensors_are_found_wherever_the_schema_has_them() {
        let tensor = tensor(b"w.bin", &[]);
        let initializer = field(5, &tensor);
        let sparse = |value| field(value, &tensor);
        let attribute = field(5, &field(5, &tensor));
        let graph = field(5, &field(6, &initializer));
        for (place, model) in [
            ("an initializer", field(7, &initializer)),
            ("a sparse initializer's values", field(7, &field(15, &sparse(1)))),
            ("a sparse initializer's indices", field(7, &field(15, &sparse(2)))),
            ("an attribute", field(7, &field(1, &attribute))),
            ("one of an attribute's tensors", field(7, &field(1, &field(5, &field(10, &tensor))))),
            ("a sparse attribute", field(7, &field(1, &field(5, &field(22, &sparse(1)))))),
            ("one of an attribute's sparse tensors", field(7, &field(1, &field(5, &field(23, &sparse(2)))))),
            ("a graph in an attribute", field(7, &field(1, &graph))),
            ("one of an attribute's graphs", field(7, &field(1, &field(5, &field(11, &initializer))))),
            ("a graph in a graph", field(7, &field(1, &field(5, &field(6, &field(1, &graph)))))),
            ("a function's node", field(25, &field(7, &attribute))),
            ("a graph in a function", field(25, &field(7, &graph))),
            ("a function's default attribute", field(25, &field(11, &field(5, &tensor)))),
            ("training information", field(20, &field(1, &initializer))),
            ("a training algorithm", field(20, &field(2, &initializer))),
        ] {
            let found = scan(&model).unwrap_or_else(|fault| panic!("{place}: {fault}"));
            assert_eq!(found.files.keys().collect::<Vec<_>>(), [Path::new("w.bin")], "{place}");
            assert_eq!(found.is_nested, place != "an initializer", "{place}");
        }
    }

    #[test]
    fn a_file_is_one_in_all_its_spellings_and_must_have_what_its_tensors_need() {
        let metrics = |offset: &str, length: &str| {
            [entry("offset", offset.as_bytes()), entry("length", length.as_bytes())]
        };
        let tensors = [
            tensor(b"a/../w\xff.bin", &metrics("16", "4")),
            tensor(b".//w\xff.bin", &metrics("", "7")),
            tensor(b"sub/w.bin", &[]),
        ];
        let model: Vec<u8> = tensors.iter().flat_map(|tensor| model(tensor)).collect();
        let found = scan(&model).unwrap();
        let files: Vec<(&Path, u64, usize)> =
            found.files.iter().map(|(path, file)| (&**path, file.bytes_min, file.spellings.len())).collect();
        let name = Path::new(OsStr::from_bytes(b"w\xff.bin"));
        assert_eq!(files, [(Path::new("sub/w.bin"), 0, 1), (name, 20, 2)]);
    }

    #[test]
    fn what_is_not_external_is_left_alone() {
        for tensor in [
            field(8, b"W"),
            [field(8, b"W"), entry("location", b"../x")].concat(),
            [tensor(b"../x", &[]), vec![14 << 3, 0]].concat(),
        ] {
            assert_eq!(scan(&model(&tensor)), Ok(ExternalData::default()));
        }
        // The last flag counts. A number that the schema does not define is ignored.
        let marks = [&[14 << 3][..], &varint(1 << 32 | 1), &[14 << 3, 7]].concat();
        let tensor = [entry("location", b"w"), marks].concat();
        assert_eq!(scan(&model(&tensor)).unwrap().files.len(), 1);
        assert_eq!(scan(b"\x1c\0\0\0ORTM and more"), Ok(ExternalData::default()));
    }

    #[test]
    fn locations_that_are_no_file_beside_the_model_are_refused_with_the_tensor() {
        for (location, why) in [
            (&b""[..], "has no location"),
            (b"..", "leaves the model's folder"),
            (b"../w.bin", "\"../w.bin\" leaves the model's folder"),
            (b"a/../../w.bin", "leaves the model's folder"),
            (b"/etc/passwd", "not relative"),
            (b".", "names a folder"),
            (b"a/..", "names a folder"),
            (b"w.bin/", "names a folder"),
            (b"w.bin/.", "names a folder"),
            (b"w.bin\0.txt", "NUL"),
            (b"*/_ORT_MEM_ADDR_/*", "reserved"),
            (&[b'x'; 5000], "longer than a path can be"),
        ] {
            let refusal = refusal(&model(&tensor(location, &[])));
            assert!(refusal.starts_with("tensor \"W\": ") && refusal.contains(why), "{refusal}");
        }
        for (rest, why) in [
            (vec![entry("location", b"other")], "a key twice"),
            (vec![entry("offset", b"-4")], "its offset \"-4\" is not a whole number"),
            (vec![entry("length", b"4 ")], "its length \"4 \" is not a whole number"),
            (vec![entry("offset", b"9223372036854775807"), entry("length", b"1")], "too large"),
        ] {
            let refusal = refusal(&model(&tensor(b"w.bin", &rest)));
            assert!(refusal.contains(why), "{refusal}");
        }
    }

    #[test]
    fn hostile_files_cost_neither_the_stack_nor_memory() {
        let mut nested = field(5, &tensor(b"w.bin", &[]));
        for _ in 0..1000 {
            nested = field(1, &field(5, &field(6, &nested)));
        }
        assert!(refusal(&field(7, &nested)).contains("nested more than 100 deep"));
        let many: Vec<u8> =
            (0..=FILES_MAX).flat_map(|n| model(&tensor(n.to_string().as_bytes(), &[]))).collect();
        assert!(refusal(&many).contains("more than 65536 files"));
        let twice = [field(5, &tensor(b"w.bin", &[])), field(5, &EXTERNAL)].concat();
        let split = field(7, &field(1, &field(5, &twice)));
        assert_eq!(scan(&split), Err(Fault::Unreadable), "a tensor in two parts");
        for damaged in [&b"hello"[..], b"\0asm\x0d\0\x01\0", &field(7, b"\x2a\x05ab")] {
            assert_eq!(scan(damaged), Err(Fault::Unreadable), "{damaged:?}");
        }
    }

    #[test]
    fn prepacked_weights_are_pointed_at() {
        let model = model(&tensor(b"w.bin", &[entry("prepacked_0", b"key|0;99;0")]));
        let found = scan(&model).unwrap();
        assert_eq!(found.prepacked.len(), 1);
        assert_eq!(&model[found.prepacked[0].clone()], b"key|0;99;0");
    }
}
