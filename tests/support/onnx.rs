//! Writes small ONNX models, so that a test can place any tensor anywhere.
//!
//! Messages are lists of encoded fields; the field numbers are those of ONNX's schema.

pub type Bytes = Vec<u8>;

pub fn varint(mut value: u64) -> Bytes {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// Encodes a field with a string, bytes or a nested message.
pub fn field(number: u64, content: impl AsRef<[u8]>) -> Bytes {
    let content = content.as_ref();
    [varint(number << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

pub fn integer(number: u64, value: u64) -> Bytes {
    [varint(number << 3), varint(value)].concat()
}

pub const FLOAT: u64 = 1;
pub const INT64: u64 = 7;
pub const BOOL: u64 = 9;

/// Encodes the name, type and dimensions that every tensor has.
fn head(name: &str, datatype: u64, dims: &[u64]) -> Bytes {
    let dims: Bytes = dims.iter().flat_map(|&dim| integer(1, dim)).collect();
    [dims, integer(2, datatype), field(8, name)].concat()
}

/// Encodes a tensor with its bytes in the model.
pub fn tensor(name: &str, datatype: u64, dims: &[u64], raw: &[u8]) -> Bytes {
    [head(name, datatype, dims), field(9, raw)].concat()
}

/// Encodes a tensor with its bytes in an external file.
pub fn external(name: &str, datatype: u64, dims: &[u64], location: &str) -> Bytes {
    [head(name, datatype, dims), entry("location", location), integer(14, 1)].concat()
}

/// Encodes one of the keys that locate external data; append it to the tensor.
pub fn entry(key: &str, value: &str) -> Bytes {
    field(13, [field(1, key), field(2, value)].concat())
}

/// Encodes an input or output.
pub fn value(name: &str, datatype: u64, dims: &[u64]) -> Bytes {
    let dims: Bytes = dims.iter().flat_map(|&dim| field(1, integer(1, dim))).collect();
    let tensor = [integer(1, datatype), field(2, dims)].concat();
    [field(1, name), field(2, field(1, tensor))].concat()
}

/// Encodes an input or output whose free dimensions are -1. Without dimensions, it has no shape.
pub fn shaped(name: &str, datatype: u64, dims: Option<&[i64]>) -> Bytes {
    let dim = |&dim: &i64| match u64::try_from(dim) {
        Ok(dim) => field(1, integer(1, dim)),
        Err(_) => field(1, []),
    };
    let shape = dims.map_or_else(Bytes::new, |dims| field(2, dims.iter().flat_map(dim).collect::<Bytes>()));
    let tensor = [integer(1, datatype), shape].concat();
    [field(1, name), field(2, field(1, tensor))].concat()
}

/// Encodes a model of one node, with these inputs and this output.
pub fn one_node(op: &str, inputs: &[(&str, u64, Option<&[i64]>)], output: Option<&[i64]>) -> Bytes {
    let names: Vec<&str> = inputs.iter().map(|(name, ..)| *name).collect();
    let inputs: Vec<Bytes> =
        inputs.iter().map(|(name, datatype, dims)| shaped(name, *datatype, *dims)).collect();
    model(&graph(&[node(op, &names, &["y"], &[])], &inputs, &[shaped("y", FLOAT, output)]), &[])
}

pub fn attribute(name: &str, kind: u64, number: u64, content: &[u8]) -> Bytes {
    field(5, [field(1, name), field(number, content), integer(20, kind)].concat())
}

pub fn tensor_attribute(name: &str, tensor: &[u8]) -> Bytes {
    attribute(name, 4, 5, tensor)
}

pub fn graph_attribute(name: &str, graph: &[u8]) -> Bytes {
    attribute(name, 5, 6, graph)
}

pub fn sparse_attribute(name: &str, sparse: &[u8]) -> Bytes {
    attribute(name, 11, 22, sparse)
}

/// Encodes a node as a field of a graph.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str], rest: &[Bytes]) -> Bytes {
    field(1, node_message(op, inputs, outputs, rest))
}

pub fn node_message(op: &str, inputs: &[&str], outputs: &[&str], rest: &[Bytes]) -> Bytes {
    let inputs: Bytes = inputs.iter().flat_map(|name| field(1, name)).collect();
    let outputs: Bytes = outputs.iter().flat_map(|name| field(2, name)).collect();
    [inputs, outputs, field(4, op), rest.concat()].concat()
}

/// Encodes a sparse tensor of one dimension.
pub fn sparse(values: &[u8], indices: &[u8], length: u64) -> Bytes {
    [field(1, values), field(2, indices), integer(3, length)].concat()
}

/// Encodes a graph: `fields` are its nodes and initializers, inputs and outputs are values.
pub fn graph(fields: &[Bytes], inputs: &[Bytes], outputs: &[Bytes]) -> Bytes {
    let inputs: Bytes = inputs.iter().flat_map(|value| field(11, value)).collect();
    let outputs: Bytes = outputs.iter().flat_map(|value| field(12, value)).collect();
    [fields.concat(), field(2, "g"), inputs, outputs].concat()
}

fn opset(domain: &str, version: u64) -> Bytes {
    field(8, [field(1, domain), integer(2, version)].concat())
}

/// Encodes a complete model; `rest` are further fields, such as functions.
pub fn model(graph: &[u8], rest: &[Bytes]) -> Bytes {
    [integer(1, 8), opset("", 17), opset("own", 1), field(7, graph), rest.concat()].concat()
}

/// Encodes a function `own.F` with one input `a` and one output `b`.
pub fn function(nodes: &[Bytes]) -> Bytes {
    let nodes: Bytes = nodes.iter().flat_map(|node| field(7, node)).collect();
    let opset = field(9, [field(1, ""), integer(2, 17)].concat());
    field(25, [field(1, "F"), field(4, "a"), field(5, "b"), nodes, opset, field(10, "own")].concat())
}

pub fn floats(values: &[f32]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub fn integers(values: &[i64]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
