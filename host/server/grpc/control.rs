//! Configuration, statistics and the repository as messages. Their content is decided in
//! `oip::control`, for both protocols.

use super::state::Grpc;
use super::text::non_empty;
use crate::access::Requester;
use crate::error::{Error, Result};
use crate::policy::RouteQuery;
use crate::predict::{Datatype, MemoryBudget};
use crate::proto::inference::model_config::SchedulingChoice;
use crate::proto::inference::model_instance_group::Kind;
use crate::proto::inference::model_repository_parameter::ParameterChoice;
use crate::proto::inference::model_version_policy::{All, PolicyChoice};
use crate::proto::inference::repository_index_response::ModelIndex;
use crate::proto::inference::*;
use crate::server::http;
use crate::server::oip::config;
use crate::server::oip::control::{self, ControlCall, IndexEntry};
use crate::server::oip::statistics::{self, DurationTotal};
use hyper::HeaderMap;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub(super) fn config(
    grpc: &Grpc,
    requester: &Requester,
    headers: &HeaderMap,
    name: &str,
    version: &str,
) -> Result<ModelConfigResponse> {
    let id = http::request_id(headers);
    let caller = RouteQuery { request_id: &id, header: &http::header_lookup(headers) };
    let policy = grpc.router().policy();
    let config = control::model_config(&policy, requester, name, non_empty(version), &caller)?;
    Ok(ModelConfigResponse { config: Some(config_message(config)) })
}

fn config_message(config: config::ModelConfig) -> ModelConfig {
    let batching = config.dynamic_batching.map(|batching| {
        SchedulingChoice::DynamicBatching(ModelDynamicBatching {
            preferred_batch_size: batching.preferred_batch_size.into_iter().map(small).collect(),
            max_queue_delay_microseconds: batching.max_queue_delay_microseconds,
            ..Default::default()
        })
    });
    let input = |input: config::ModelInput| ModelInput {
        name: input.name,
        data_type: data_type(input.data_type).into(),
        format: match input.format {
            config::Format::None => model_input::Format::None,
            config::Format::Nhwc => model_input::Format::Nhwc,
            config::Format::Nchw => model_input::Format::Nchw,
        }
        .into(),
        dims: input.dims,
        optional: input.optional,
        ..Default::default()
    };
    let output = |output: config::ModelOutput| ModelOutput {
        name: output.name,
        data_type: data_type(output.data_type).into(),
        dims: output.dims,
        ..Default::default()
    };
    let group = |group: config::InstanceGroup| ModelInstanceGroup {
        name: group.name,
        kind: Kind::from_str_name(group.kind).unwrap_or_default().into(),
        count: small(group.count),
        gpus: group.gpus,
        ..Default::default()
    };
    let parameter = |(name, parameter): (&str, config::Parameter)| {
        (name.to_owned(), ModelParameter { string_value: parameter.string_value })
    };
    ModelConfig {
        name: config.name,
        platform: config.platform.into(),
        backend: config.backend.into(),
        version_policy: Some(ModelVersionPolicy { policy_choice: Some(PolicyChoice::All(All {})) }),
        max_batch_size: small(config.max_batch_size),
        input: config.input.into_iter().map(input).collect(),
        output: config.output.into_iter().map(output).collect(),
        instance_group: config.instance_group.into_iter().map(group).collect(),
        scheduling_choice: batching,
        model_transaction_policy: Some(ModelTransactionPolicy {
            decoupled: config.model_transaction_policy.decoupled,
        }),
        parameters: config.parameters.into_iter().map(parameter).collect(),
        ..Default::default()
    }
}

/// Converts a number to the 32 bits that the message has.
fn small(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn data_type(datatype: Datatype) -> DataType {
    DataType::from_str_name(&config::config_type(datatype)).unwrap_or_default()
}

pub(super) fn statistics(
    grpc: &Grpc,
    requester: &Requester,
    name: &str,
    version: &str,
) -> Result<ModelStatisticsResponse> {
    // Without a name, all models are included.
    let policy = grpc.router().policy();
    let stats = control::model_statistics(&policy, requester, non_empty(name), non_empty(version))?;
    Ok(ModelStatisticsResponse { model_stats: stats.into_iter().map(statistics_message).collect() })
}

fn statistics_message(stats: statistics::ModelStatistics) -> ModelStatistics {
    let of = stats.inference_stats;
    let batch = |batch: statistics::BatchStatistics| InferBatchStatistics {
        batch_size: batch.batch_size,
        compute_input: duration(batch.compute_input),
        compute_infer: duration(batch.compute_infer),
        compute_output: duration(batch.compute_output),
    };
    ModelStatistics {
        name: stats.name,
        version: stats.version,
        last_inference: stats.last_inference,
        inference_count: stats.inference_count,
        execution_count: stats.execution_count,
        inference_stats: Some(InferStatistics {
            success: duration(of.success),
            fail: duration(of.fail),
            queue: duration(of.queue),
            compute_input: duration(of.compute_input),
            compute_infer: duration(of.compute_infer),
            compute_output: duration(of.compute_output),
            cache_hit: duration(of.cache_hit),
            cache_miss: duration(of.cache_miss),
        }),
        batch_stats: stats.batch_stats.into_iter().map(batch).collect(),
        // Not measured.
        memory_usage: Vec::new(),
        response_stats: BTreeMap::new(),
    }
}

fn duration(total: DurationTotal) -> Option<StatisticDuration> {
    Some(StatisticDuration { count: total.count, ns: total.ns })
}

/// Refuses a named repository, because there is only one and it has no name.
fn check_repository(name: &str) -> Result<()> {
    if name.is_empty() { Ok(()) } else { Err(Error::unsupported(control::OTHER_REPOSITORY)) }
}

pub(super) fn index(
    grpc: &Grpc,
    requester: &Requester,
    request: &RepositoryIndexRequest,
) -> Result<RepositoryIndexResponse> {
    check_repository(&request.repository_name)?;
    let entry = |IndexEntry { name, version, state, reason }: IndexEntry| ModelIndex {
        name,
        version,
        state: state.into(),
        reason: reason.into(),
    };
    let models = control::repository_index(grpc.reloader(), requester, request.ready);
    Ok(RepositoryIndexResponse { models: models.into_iter().map(entry).collect() })
}

pub(super) async fn load(
    call: ControlCall<'_>,
    budget: MemoryBudget,
    request: RepositoryModelLoadRequest,
) -> Result<RepositoryModelLoadResponse> {
    check_repository(&request.repository_name)?;
    let parameters = parameters(request.parameters);
    control::load_model(call, &request.model_name, &parameters, budget).await?;
    Ok(RepositoryModelLoadResponse {})
}

pub(super) async fn unload(
    call: ControlCall<'_>,
    request: RepositoryModelUnloadRequest,
) -> Result<RepositoryModelUnloadResponse> {
    check_repository(&request.repository_name)?;
    let parameters = parameters(request.parameters);
    control::unload_model(call, &request.model_name, &parameters).await?;
    Ok(RepositoryModelUnloadResponse {})
}

/// Returns parameters as JSON. Bytes are the content of a file, which is refused by its name, so
/// they are not read.
fn parameters(fields: BTreeMap<String, ModelRepositoryParameter>) -> Map<String, Value> {
    let one = |(name, parameter): (String, ModelRepositoryParameter)| {
        let value = match parameter.parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => value.into(),
            Some(ParameterChoice::Int64Param(value)) => value.into(),
            Some(ParameterChoice::StringParam(value)) => value.into(),
            Some(ParameterChoice::BytesParam(_)) | None => Value::Null,
        };
        (name, value)
    };
    fields.into_iter().map(one).collect()
}
