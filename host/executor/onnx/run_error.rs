//! Explains why a run of ONNX Runtime failed: the graph refused its inputs, or the runtime itself
//! is in trouble. Paths of the runtime's source code appear only in the log.

use super::plain_message::plain;
use crate::error::{Error, Kind};
use crate::predict::{CallContext, Tensor, format_shape};
use ort::ErrorCode;
use ort::value::ValueType;
use std::collections::BTreeMap;

/// The maximum number of inputs whose shapes are shown.
const INPUTS_SHOWN: usize = 8;

/// How the runtime reports a failed node. A node in a subgraph is reported after the nodes around
/// it.
const NODE: &str = "Non-zero status code returned while running ";

const STATUS: &str = "Status Message: ";

/// The names of the free dimensions of a model's inputs, by input.
#[derive(Default)]
pub(super) struct Dimensions(BTreeMap<String, Vec<String>>);

impl Dimensions {
    pub fn of<'a>(inputs: impl Iterator<Item = (&'a str, &'a ValueType)>) -> Self {
        let named = inputs.filter_map(|(name, ty)| match ty {
            ValueType::Tensor { dimension_symbols, .. } => {
                Some((name.to_owned(), dimension_symbols.to_vec()))
            }
            _ => None,
        });
        Dimensions(named.collect())
    }

    /// Returns the first name that has different sizes. ONNX Runtime does not enforce these names
    /// (a size of 1 may be broadcast, and exporters reuse names), so this only explains a refusal.
    fn conflict(&self, inputs: &[Tensor]) -> Option<Conflict> {
        let mut seen: BTreeMap<&str, (&Tensor, i64)> = BTreeMap::new();
        for tensor in inputs {
            let names = self.0.get(tensor.name()).into_iter().flatten();
            for (name, &size) in names.zip(tensor.shape()).filter(|(name, _)| !name.is_empty()) {
                let (first, before) = *seen.entry(name).or_insert((tensor, size));
                if before != size {
                    let side = |tensor: &Tensor, size| {
                        format!("\"{}\" {} has {size}", tensor.name(), format_shape(tensor.shape()))
                    };
                    let (one, other) = (side(first, before), side(tensor, size));
                    let words =
                        format!("dimension \"{name}\" must be the same everywhere, but {one} and {other}");
                    return Some(Conflict { words, field: tensor.name().to_owned() });
                }
            }
        }
        None
    }
}

struct Conflict {
    words: String,
    field: String,
}

/// Returns the error of a run with these inputs.
pub(super) fn run_error(
    context: &CallContext,
    dimensions: &Dimensions,
    inputs: &[Tensor],
    error: &ort::Error,
) -> Error {
    let text = error.to_string();
    let explained = explain(error.code(), &text, dimensions, inputs);
    explained.context(format_args!("model \"{}:{}\"", context.model, context.version)).with_detail(text)
}

fn explain(code: ErrorCode, text: &str, dimensions: &Dimensions, inputs: &[Tensor]) -> Error {
    let words = words(text);
    if inputs.is_empty() || kind_of(code, text) == Kind::Failed {
        return Error::failed(format!("ONNX Runtime failed: {words}"));
    }
    let shown: Vec<String> = inputs.iter().take(INPUTS_SHOWN).map(shown).collect();
    let more = if inputs.len() > INPUTS_SHOWN { ", …" } else { "" };
    let shown = format!("inputs: {}{more}", shown.join(", "));
    let (message, field) = match dimensions.conflict(inputs) {
        Some(Conflict { words: conflict, field }) => {
            (format!("the inputs do not fit together: {conflict}; {words}"), Some(field))
        }
        None => {
            let field = if let [only] = inputs { Some(only.name().to_owned()) } else { None };
            (format!("the graph refuses the inputs: {words}; {shown}"), field)
        }
    };
    let refusal = Error::invalid(message).graph_refusal();
    match field {
        Some(field) => refusal.field(field),
        None => refusal,
    }
}

/// `"x" FP32 [1,600]`
fn shown(tensor: &Tensor) -> String {
    format!("\"{}\" {} {}", tensor.name(), tensor.datatype().as_str(), format_shape(tensor.shape()))
}

/// Returns `InvalidInput` if the graph refused the inputs, or `Failed` if the runtime itself is in
/// trouble: memory, a device, a missing kernel.
fn kind_of(code: ErrorCode, text: &str) -> Kind {
    const TROUBLE: [&str; 11] = [
        "Failed to allocate memory",
        "bad_alloc",
        "out of memory",
        "BFCArena",
        "CUDA failure",
        "CUDA error",
        "CUBLAS",
        "CUDNN",
        "CUFFT",
        "cudaMalloc",
        "NCCL",
    ];
    if TROUBLE.iter().any(|words| text.contains(words)) {
        return Kind::Failed;
    }
    match code {
        ErrorCode::InvalidArgument => Kind::InvalidInput,
        ErrorCode::GenericFailure | ErrorCode::RuntimeException if text.contains(NODE) => Kind::InvalidInput,
        _ => Kind::Failed,
    }
}

/// Returns what happened, and in which node, without locations in the runtime's source code.
fn words(text: &str) -> String {
    if let Some(sizes) = sizes(text) {
        return sizes;
    }
    let first = text.lines().next().unwrap_or_default();
    let Some((_, node)) = first.rsplit_once(NODE) else { return plain(first) };
    let (operator, rest) = node.split_once(" node.").unwrap_or((node, ""));
    let name = rest.split_once("Name:'").and_then(|(_, rest)| rest.split_once('\'')).map(|(name, _)| name);
    let node = match name {
        Some(name) if !name.is_empty() => format!("node \"{name}\" ({operator})"),
        _ => format!("a node {operator}"),
    };
    let reason = plain(rest.split_once(STATUS).map_or("", |(_, status)| status));
    if reason.is_empty() { format!("{node} refused them") } else { format!("{node}: {reason}") }
}

/// `input "x": dimension 2 is 300, expected 224`
fn sizes(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("Got invalid dimensions for input: ")?;
    let (input, rest) = rest.split_once(" for the following indices")?;
    let size = |line: &str| {
        let rest = line.trim().strip_prefix("index: ")?;
        let (index, rest) = rest.split_once(" Got: ")?;
        let (got, expected) = rest.split_once(" Expected: ")?;
        Some(format!("dimension {index} is {got}, expected {}", expected.trim()))
    };
    let sizes: Vec<String> = rest.lines().filter_map(size).collect();
    (!sizes.is_empty()).then(|| format!("input \"{input}\": {}", sizes.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::{Datatype, Origin};

    const ADD: &str = "Non-zero status code returned while running Add node. Name:'/embed/Add' Status Message: \
        /onnxruntime_src/onnxruntime/core/providers/cpu/math/element_wise_ops.h:583 void \
        onnxruntime::BroadcastIterator::Append(ptrdiff_t, ptrdiff_t) axis == 1 || axis == largest was false. \
        Attempting to broadcast an axis by a dimension other than 1. 512 by 600";

    /// Returns the explanation of this status for a node without a name.
    fn status(status: &str) -> String {
        words(&format!("{NODE}Op node. Name:'' {STATUS}{status}"))
    }

    #[test]
    fn messages_lose_places_in_source_code_and_keep_what_happened() {
        assert_eq!(
            words(ADD),
            "node \"/embed/Add\" (Add): Attempting to broadcast an axis by a dimension other than 1. 512 by 600"
        );
        let nested =
            format!("{NODE}If node. Name:'branch' {STATUS}{NODE}Gather node. Name:'inner' {STATUS}idx=9");
        assert_eq!(words(&nested), "node \"inner\" (Gather): idx=9");
        for (raw, plain) in [
            ("GEMM: Dimension mismatch, W: {4,2} K: 3 N:2", "GEMM: Dimension mismatch, W: {4,2} K: 3 N:2"),
            ("matmul_helper.h:59 Compute MatMul dimension mismatch", "MatMul dimension mismatch"),
            ("element_wise_ops.cc:2256 operator() Integer modulo by zero", "Integer modulo by zero"),
            (
                "/onnxruntime_src/core/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, \
                 bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 4398046511104",
                "Failed to allocate memory for requested buffer of size 4398046511104",
            ),
            (
                "/onnxruntime_src/core/common/safeint.h:17 static void SafeIntExceptionHandler<onnxruntime::\
                 OnnxRuntimeException>::SafeIntOnOverflow() Integer overflow",
                "Integer overflow",
            ),
            (
                "/onnxruntime_src/core/framework/op_kernel.cc:87 virtual OrtValue* onnxruntime::OpKernelContext::\
                 OutputMLValue(int, const onnxruntime::TensorShape&) [ONNXRuntimeError] : 1 : FAIL : tensor.cc:57 \
                 CalculateTensorStorageSize Tensor shape.Size() must be >= 0",
                "Tensor shape.Size() must be >= 0",
            ),
            (
                "/onnxruntime_src/core/a.cc:473 onnxruntime::common::Status onnxruntime::A::Run(int) const [with T = \
                 long int] split > 0 was false. Split should be > 0",
                "Split should be > 0",
            ),
            ("stoll", "a text is not a number or is out of range"),
        ] {
            assert_eq!(status(raw), format!("a node Op: {plain}"));
        }
        let sizes = "Got invalid dimensions for input: x for the following indices\n index: 2 Got: 300 Expected: \
                     224\n index: 3 Got: 300 Expected: 224\n Please fix either the inputs/outputs or the model.";
        assert_eq!(
            words(sizes),
            "input \"x\": dimension 2 is 300, expected 224, dimension 3 is 300, expected 224"
        );
    }

    #[test]
    fn memory_devices_and_what_is_not_about_a_node_are_the_runtimes_own() {
        use ErrorCode::{ExecutionProviderFailure, GenericFailure, InvalidArgument, RuntimeException};
        for (code, text, kind) in [
            (GenericFailure, ADD, Kind::InvalidInput),
            (
                RuntimeException,
                "Non-zero status code returned while running Cast node. Name:''",
                Kind::InvalidInput,
            ),
            (InvalidArgument, "Invalid rank for input: x Got: 1 Expected: 2", Kind::InvalidInput),
            (
                GenericFailure,
                "Non-zero status code returned while running Pad node. Failed to allocate memory",
                Kind::Failed,
            ),
            (
                RuntimeException,
                "Non-zero status code returned while running Relu node. std::bad_alloc",
                Kind::Failed,
            ),
            (
                GenericFailure,
                "Non-zero status code returned while running Conv node. CUDA failure 700",
                Kind::Failed,
            ),
            (GenericFailure, "the session has ended", Kind::Failed),
            (ExecutionProviderFailure, ADD, Kind::Failed),
        ] {
            assert_eq!(kind_of(code, text), kind, "{text}");
        }
    }

    #[test]
    fn a_dimension_that_two_inputs_name_is_compared() {
        let tensor = |name: &str, shape: &[i64]| {
            let data = vec![0; shape.iter().product::<i64>() as usize * 4].into();
            Tensor::new(name, Datatype::Fp32, shape.into(), data).unwrap().made_by(Origin::Caller)
        };
        let names = |names: [&str; 2]| names.map(str::to_owned).to_vec();
        let dimensions = Dimensions(
            [("a".to_owned(), names(["batch", "len"])), ("b".to_owned(), names(["batch", ""]))].into(),
        );
        let words = |a: &[i64], b: &[i64]| {
            dimensions.conflict(&[tensor("a", a), tensor("b", b)]).map(|conflict| conflict.words)
        };
        let conflict = words(&[1, 3], &[2, 3]).unwrap();
        assert_eq!(
            conflict,
            "dimension \"batch\" must be the same everywhere, but \"a\" [1,3] has 1 and \"b\" [2,3] has 2"
        );
        assert_eq!(words(&[2, 3], &[2, 4]), None, "the second has no name");
    }
}
