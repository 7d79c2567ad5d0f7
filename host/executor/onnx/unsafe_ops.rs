//! Operators of ONNX Runtime that access memory outside of their tensors for some inputs, which may
//! end the process.
//!
//! Measured with version 1.31.1, by runs of 1,447 models with odd shapes.
//! [`own_stack`](super::own_stack) handles the faults that the runtime detects itself, with
//! `std::terminate`.

use crate::proto::wire::{Fields, Value};
use std::collections::HashSet;

/// The unsafe operators of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UnsafeOps {
    /// An operator whose inputs must not have a dimension of 0.
    pub needs_elements: Option<&'static str>,
    /// An operator that must not run at all, and the reason.
    pub refused: Option<(&'static str, &'static str)>,
}

const MICROSOFT: &str = "com.microsoft";

/// Domains and names of operators that crash for a dimension of 0, or for a batch of 0.
const NEED_ELEMENTS: [(&str, &str); 8] = [
    ("", "LSTM"),
    ("", "GRU"),
    ("", "ConvTranspose"),
    (MICROSOFT, "AttnLSTM"),
    (MICROSOFT, "DynamicQuantizeLSTM"),
    (MICROSOFT, "RotaryEmbedding"),
    (MICROSOFT, "SkipLayerNormalization"),
    (MICROSOFT, "SkipSimplifiedLayerNormalization"),
];

/// Operators of Microsoft's domain that check their sizes only if these inputs are constants.
const NEED_CONSTANTS: [(&str, &[usize]); 2] =
    [("DynamicQuantizeMatMul", &[1, 2]), ("MatMulIntegerToFloat", &[1, 3])];

const NOT_CONSTANT: &str =
    "reads outside of its tensors if its weights and their scales are not initializers";
const NOT_SQUARE: &str = "writes outside of its tensors if a matrix is not square";

/// The maximum depth of nested graphs that are scanned.
const DEPTH_MAX: usize = 64;

impl UnsafeOps {
    /// Scans a model file. An unreadable file yields no operators; the loader reports it.
    pub fn of(model: &[u8]) -> Self {
        let mut found = UnsafeOps::default();
        for (number, content) in messages(model) {
            match number {
                // graph, functions
                7 => found.add_graph(content, DEPTH_MAX),
                25 => found.add_nodes(content, 7, &HashSet::new(), DEPTH_MAX),
                _ => {}
            }
        }
        found
    }

    fn add_graph(&mut self, graph: &[u8], depth: usize) {
        let name_of = |tensor| texts(tensor, 8).next();
        let initializers = messages(graph).filter(|(number, _)| *number == 5);
        let mut constants: HashSet<&[u8]> = initializers.filter_map(|(_, tensor)| name_of(tensor)).collect();
        let nodes = messages(graph).filter(|(number, _)| *number == 1);
        constants
            .extend(nodes.filter(|(_, node)| op(node) == b"Constant").flat_map(|(_, node)| texts(node, 2)));
        self.add_nodes(graph, 1, &constants, depth);
    }

    fn add_nodes(&mut self, graph: &[u8], field: u32, constants: &HashSet<&[u8]>, depth: usize) {
        for (_, node) in messages(graph).filter(|(number, _)| *number == field) {
            self.add_node(node, constants, depth);
        }
    }

    fn add_node(&mut self, node: &[u8], constants: &HashSet<&[u8]>, depth: usize) {
        let (op, domain) = (op(node), texts(node, 7).next().unwrap_or_default());
        let domain = if domain == b"ai.onnx" { b"" } else { domain };
        let is =
            |known_domain: &str, known: &str| op == known.as_bytes() && domain == known_domain.as_bytes();
        if let Some((_, known)) = NEED_ELEMENTS.iter().find(|(domain, known)| is(domain, known)) {
            self.needs_elements = Some(known);
        }
        let attributes = || messages(node).filter(|(number, _)| *number == 5).map(|(_, attribute)| attribute);
        let has_blocks =
            || attributes().any(|attribute| texts(attribute, 1).any(|name| name == b"block_size"));
        if op == b"QuantizeLinear" && has_blocks() {
            self.needs_elements = Some("QuantizeLinear");
        }
        if is(MICROSOFT, "Inverse") {
            self.refused = Some(("Inverse", NOT_SQUARE));
        }
        for (known, inputs) in NEED_CONSTANTS {
            let names: Vec<&[u8]> = texts(node, 1).collect();
            let is_constant = |&index: &usize| names.get(index).is_none_or(|name| constants.contains(name));
            if is(MICROSOFT, known) && !inputs.iter().all(is_constant) {
                self.refused = Some((known, NOT_CONSTANT));
            }
        }
        let Some(depth) = depth.checked_sub(1) else { return };
        for attribute in attributes() {
            // g, graphs
            let graphs = messages(attribute).filter(|(number, _)| matches!(number, 6 | 11));
            graphs.for_each(|(_, graph)| self.add_graph(graph, depth));
        }
    }
}

fn op(node: &[u8]) -> &[u8] {
    texts(node, 4).next().unwrap_or_default()
}

/// Returns the fields that contain bytes, up to the first that cannot be read.
fn messages(message: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let fields = Fields::of(message).map_while(Result::ok);
    fields.filter_map(|(number, value)| match value {
        Value::Bytes(content) => Some((number, content)),
        _ => None,
    })
}

fn texts(message: &[u8], field: u32) -> impl Iterator<Item = &[u8]> {
    messages(message).filter(move |(number, _)| *number == field).map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        assert!(content.len() < 16_384);
        let length = [(content.len() & 0x7f) as u8 | 0x80, (content.len() >> 7) as u8];
        let mut bytes = varint(u32::from(number) << 3 | 2);
        bytes.extend_from_slice(&length);
        bytes.extend_from_slice(content);
        bytes
    }

    fn varint(number: u32) -> Vec<u8> {
        match number {
            0..128 => vec![number as u8],
            _ => vec![number as u8 | 0x80, (number >> 7) as u8],
        }
    }

    fn node(domain: &str, op: &str, inputs: &[&str], rest: &[u8]) -> Vec<u8> {
        let inputs: Vec<u8> = inputs.iter().flat_map(|name| field(1, name.as_bytes())).collect();
        [inputs, field(2, b"out"), field(4, op.as_bytes()), field(7, domain.as_bytes()), rest.to_vec()]
            .concat()
    }

    fn found(graph: &[u8]) -> UnsafeOps {
        UnsafeOps::of(&field(7, graph))
    }

    #[test]
    fn operators_are_found_wherever_they_are() {
        let lstm = node("", "LSTM", &["x", "w", "r"], &[]);
        let needs = |model: &[u8]| UnsafeOps::of(model).needs_elements;
        assert_eq!(needs(&field(7, &field(1, &lstm))), Some("LSTM"));
        assert_eq!(needs(&field(25, &field(7, &lstm))), Some("LSTM"), "in a function");
        let branch = field(5, &field(6, &field(1, &lstm)));
        assert_eq!(found(&field(1, &node("", "If", &["c"], &branch))).needs_elements, Some("LSTM"));
        assert_eq!(found(&field(1, &node("own", "LSTM", &["x"], &[]))), UnsafeOps::default());
        assert_eq!(found(&field(1, &node("ai.onnx", "GRU", &["x"], &[]))).needs_elements, Some("GRU"));
        let blocks = field(5, &field(1, b"block_size"));
        assert_eq!(found(&field(1, &node("", "QuantizeLinear", &["x"], &[]))), UnsafeOps::default());
        assert_eq!(
            found(&field(1, &node("", "QuantizeLinear", &["x"], &blocks))).needs_elements,
            Some("QuantizeLinear")
        );
    }

    #[test]
    fn sizes_that_nobody_checks_are_refused() {
        let product = node(MICROSOFT, "DynamicQuantizeMatMul", &["x", "w", "s"], &[]);
        let initializer = |name: &str| field(5, &field(8, name.as_bytes()));
        let graph = [field(1, &product), initializer("w")].concat();
        assert_eq!(found(&graph).refused, Some(("DynamicQuantizeMatMul", NOT_CONSTANT)));
        assert_eq!(found(&[graph, initializer("s")].concat()).refused, None);
        assert_eq!(
            found(&field(1, &node(MICROSOFT, "Inverse", &["x"], &[]))).refused,
            Some(("Inverse", NOT_SQUARE))
        );
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let mut random = fastrand::Rng::with_seed(11);
        let good = field(7, &field(1, &node("", "LSTM", &["x"], &field(5, &field(6, &field(1, b"abc"))))));
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..random.usize(1..6) {
                let place = random.usize(..bytes.len());
                bytes[place] = random.u8(..);
            }
            bytes.truncate(random.usize(..=bytes.len()));
            UnsafeOps::of(&bytes);
        }
    }
}
