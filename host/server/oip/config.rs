//! A model's configuration in the form of Triton's ModelConfig, for both protocols.
//!
//! It is not stored but derived from the policy. Its tensors lack the dimension of the batch, which
//! the model's metadata include.

use super::identity::PLATFORM;
use crate::executor::Device;
use crate::policy::plan::ExecutorPlan;
use crate::policy::{Policy, Route};
use crate::predict::{Datatype, TensorSpec};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Triton's ModelConfig, limited to the fields that apply here.
#[derive(Serialize)]
pub(in crate::server) struct ModelConfig {
    pub name: String,
    pub platform: &'static str,
    pub backend: &'static str,
    pub version_policy: VersionPolicy,
    /// 0 if the tensors have no dimension for a batch.
    pub max_batch_size: usize,
    pub input: Vec<ModelInput>,
    pub output: Vec<ModelOutput>,
    pub instance_group: Vec<InstanceGroup>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_batching: Option<DynamicBatching>,
    pub model_transaction_policy: TransactionPolicy,
    pub parameters: BTreeMap<&'static str, Parameter>,
}

/// Says that every version in the manifest is served.
#[derive(Serialize)]
pub(in crate::server) struct VersionPolicy {
    pub all: Map<String, Value>,
}

#[derive(Serialize)]
pub(in crate::server) struct ModelInput {
    pub name: String,
    #[serde(serialize_with = "type_name")]
    pub data_type: Datatype,
    pub format: Format,
    /// Without the dimension of the batch. Empty for a scalar and for an unknown rank.
    pub dims: Vec<i64>,
    pub optional: bool,
}

#[derive(Serialize)]
pub(in crate::server) struct ModelOutput {
    pub name: String,
    #[serde(serialize_with = "type_name")]
    pub data_type: Datatype,
    pub dims: Vec<i64>,
    /// Empty if its elements have no labels.
    pub label_filename: String,
}

#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
pub(in crate::server) enum Format {
    #[serde(rename = "FORMAT_NONE")]
    None,
    #[serde(rename = "FORMAT_NHWC")]
    Nhwc,
    #[serde(rename = "FORMAT_NCHW")]
    Nchw,
}

#[derive(Serialize)]
pub(in crate::server) struct InstanceGroup {
    /// The name of the executor.
    pub name: String,
    pub kind: &'static str,
    /// The number of its workers.
    pub count: usize,
    pub gpus: Vec<i32>,
}

#[derive(Serialize)]
pub(in crate::server) struct DynamicBatching {
    pub preferred_batch_size: Vec<usize>,
    pub max_queue_delay_microseconds: u64,
}

#[derive(Serialize)]
pub(in crate::server) struct TransactionPolicy {
    /// Whether a request has 0..n responses.
    pub decoupled: bool,
}

#[derive(Serialize)]
pub(in crate::server) struct Parameter {
    pub string_value: String,
}

/// Returns Triton's name of a datatype in a configuration, such as `TYPE_FP32`.
pub(in crate::server) fn config_type(datatype: Datatype) -> String {
    match datatype {
        Datatype::Bytes => "TYPE_STRING".into(),
        other => format!("TYPE_{}", other.as_str()),
    }
}

fn type_name<S: Serializer>(datatype: &Datatype, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&config_type(*datatype))
}

/// Returns the configuration of a route of `policy`.
pub(in crate::server) fn config(policy: &Policy, route: &Route) -> ModelConfig {
    let plan = &policy.content.plan;
    let metadata = route.metadata();
    let required = metadata.inputs.iter().filter(|spec| !spec.optional);
    let rows = |spec: &TensorSpec| spec.shape.has_free_rows();
    // The inputs of a transformer need not be rows.
    let batching = route.batching.filter(|_| required.chain(&metadata.outputs).all(rows));
    let dims = |spec: &TensorSpec| {
        let skip = usize::from(batching.is_some() && rows(spec));
        spec.shape.on_wire().iter().skip(skip).copied().collect::<Vec<_>>()
    };
    let labels = |output: &str| {
        let file = plan.models.get(&route.name)?.labels.get(output)?;
        Some(file.path.file_name()?.to_string_lossy().into_owned())
    };
    let input = |spec: &TensorSpec| ModelInput {
        name: spec.name.to_string(),
        data_type: spec.datatype,
        format: format(&dims(spec)),
        dims: dims(spec),
        optional: spec.optional,
    };
    let output = |spec: &TensorSpec| ModelOutput {
        name: spec.name.to_string(),
        data_type: spec.datatype,
        dims: dims(spec),
        label_filename: labels(&spec.name).unwrap_or_default(),
    };
    let executor = route.executor.name();
    let device = match plan.executors.get(executor) {
        Some(ExecutorPlan::Pool { sessions, .. }) => sessions.device,
        _ => Device::Cpu,
    };
    let (kind, gpus) = match device {
        Device::Cpu => ("KIND_CPU", Vec::new()),
        Device::Cuda(index) => ("KIND_GPU", vec![index]),
    };
    let count = plan.executors.get(executor).map_or(1, ExecutorPlan::workers);
    let transformer = route.transformer.as_ref().map(|transformer| transformer.name().to_string());
    let timeout = route.timeout.map(|timeout| timeout.as_millis().to_string());
    let parameters =
        [("executor", Some(executor.to_owned())), ("transformer", transformer), ("timeout_ms", timeout)];
    let parameter = |(name, value): (_, Option<_>)| Some((name, Parameter { string_value: value? }));
    ModelConfig {
        name: route.name.name.to_string(),
        platform: PLATFORM,
        backend: route.executor.kind(),
        version_policy: VersionPolicy { all: Map::new() },
        max_batch_size: batching.map_or(0, |batching| batching.max_size),
        input: metadata.inputs.iter().map(input).collect(),
        output: metadata.outputs.iter().map(output).collect(),
        instance_group: vec![InstanceGroup { name: executor.to_owned(), kind, count, gpus }],
        dynamic_batching: batching.map(|batching| DynamicBatching {
            preferred_batch_size: vec![batching.max_size],
            max_queue_delay_microseconds: batching.max_delay.as_micros() as u64,
        }),
        model_transaction_policy: TransactionPolicy { decoupled: metadata.streaming },
        parameters: parameters.into_iter().filter_map(parameter).collect(),
    }
}

/// Three dimensions are those of an image if the first or the last can be that of color channels.
fn format(dims: &[i64]) -> Format {
    match dims {
        [1 | 3, _, _] => Format::Nchw,
        [_, _, 1 | 3] => Format::Nhwc,
        _ => Format::None,
    }
}
