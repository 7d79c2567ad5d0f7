//! Which files beside an ONNX model hold its weights.
//!
//! Reads only the few fields of ONNX's protobuf schema that say so; all others are skipped.

use prost::Message;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializers: Vec<Tensor>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(message, optional, tag = "5")]
    tensor: Option<Tensor>,
    #[prost(message, optional, tag = "6")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// Paths relative to the model's folder, sorted. A file that is no ONNX model has none: what is wrong with
/// it is for ONNX Runtime to say. Paths that leave the folder are left out, and refused there.
pub fn locations(model: &[u8]) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    if let Ok(Model { graph: Some(graph) }) = Model::decode(model) {
        in_graph(&graph, &mut found);
    }
    found.into_iter().collect()
}

fn in_graph(graph: &Graph, found: &mut BTreeSet<PathBuf>) {
    graph.initializers.iter().for_each(|tensor| in_tensor(tensor, found));
    for attribute in graph.nodes.iter().flat_map(|node| &node.attributes) {
        attribute.tensor.iter().chain(&attribute.tensors).for_each(|tensor| in_tensor(tensor, found));
        attribute.graph.iter().chain(&attribute.graphs).for_each(|graph| in_graph(graph, found));
    }
}

fn in_tensor(tensor: &Tensor, found: &mut BTreeSet<PathBuf>) {
    let locations = tensor.external_data.iter().filter(|entry| entry.key == "location");
    for path in locations.map(|entry| Path::new(&entry.value)) {
        if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            found.insert(path.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_found_in_nested_graphs_and_nothing_is_assumed() {
        let tensor = |location: &str| Tensor {
            external_data: vec![Entry { key: "location".into(), value: location.into() }],
        };
        let inner = Graph { initializers: vec![tensor("b.bin"), tensor("../out.bin")], nodes: vec![] };
        let attribute = Attribute { graph: Some(inner), ..Attribute::default() };
        let node = Node { attributes: vec![attribute] };
        let graph = Graph { initializers: vec![tensor("a.bin")], nodes: vec![node] };
        let model = Model { graph: Some(graph) }.encode_to_vec();
        assert_eq!(locations(&model), [Path::new("a.bin"), Path::new("b.bin")]);
        assert_eq!(locations(b"not a model"), Vec::<PathBuf>::new());
    }
}
