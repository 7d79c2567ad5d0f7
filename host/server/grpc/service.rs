//! The calls of `inference.GRPCInferenceService`, except for `ModelInfer` and `ModelStreamInfer`.

use super::state::Grpc;
use super::{control, metadata, status};
use crate::access::Requester;
use crate::error::{Error, Kind, Result};
use crate::proto::inference::grpc_inference_service_server::GrpcInferenceService;
use crate::proto::inference::*;
use crate::server::audit::Actor;
use crate::server::oip::control::ControlCall;
use crate::server::oip::unsupported::no_region;
use hyper::HeaderMap;
use std::sync::Arc;
use tonic::{Request, Response, Status};

type ReplyResult<T> = Result<Response<T>, Status>;

fn answer<T>(outcome: Result<T>) -> ReplyResult<T> {
    outcome.map(Response::new).map_err(|error| status::status_of(&error))
}

/// Returns the headers, which routing rules may inspect, the requester, and the message.
fn split<T>(grpc: &Grpc, request: Request<T>) -> (HeaderMap, Requester, T) {
    let (metadata, extensions, message) = request.into_parts();
    (metadata.into_headers(), grpc.requester(&extensions), message)
}

/// Returns who makes a call that changes something.
fn actor<T>(request: &Request<T>) -> Actor {
    let noted = request.extensions().get::<Actor>().cloned();
    noted.unwrap_or_else(|| Actor { by: "unknown".into(), address: None, request_id: None })
}

impl Grpc {
    fn control_call(&self, requester: Requester, actor: Actor) -> ControlCall<'_> {
        ControlCall { reloader: self.reloader(), requester, auditor: &self.auditor, actor }
    }
}

fn not_offered<T>(what: &str) -> ReplyResult<T> {
    answer(Err(Error::unsupported(what)))
}

const SHARED_MEMORY: &str = "shared memory is not supported; send and receive tensors in the message itself";
const TRACES: &str = "tracing is not supported; x-request-id finds a request in the logs";
const LOGS: &str = "log settings are not supported: HOSTLER_LOG says at start what is logged";

#[tonic::async_trait]
impl GrpcInferenceService for Grpc {
    async fn server_live(self: Arc<Self>, _: Request<ServerLiveRequest>) -> ReplyResult<ServerLiveResponse> {
        answer(Ok(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        self: Arc<Self>,
        _: Request<ServerReadyRequest>,
    ) -> ReplyResult<ServerReadyResponse> {
        answer(Ok(ServerReadyResponse { ready: self.is_ready() }))
    }

    async fn model_ready(
        self: Arc<Self>,
        request: Request<ModelReadyRequest>,
    ) -> ReplyResult<ModelReadyResponse> {
        let (headers, requester, ModelReadyRequest { name, version }) = split(&self, request);
        let policy = self.router().policy();
        let route = metadata::route(&policy, &requester, &headers, &name, &version);
        if let Err(error) = &route
            && error.kind() != Kind::NotFound
        {
            return Err(status::status_of(error));
        }
        let can_run = route.is_ok_and(|route| route.callable.ready().is_ok());
        answer(Ok(ModelReadyResponse { ready: can_run && self.readiness.refusal().is_none() }))
    }

    async fn server_metadata(
        self: Arc<Self>,
        _: Request<ServerMetadataRequest>,
    ) -> ReplyResult<ServerMetadataResponse> {
        answer(Ok(metadata::server()))
    }

    async fn model_metadata(
        self: Arc<Self>,
        request: Request<ModelMetadataRequest>,
    ) -> ReplyResult<ModelMetadataResponse> {
        let (headers, requester, ModelMetadataRequest { name, version }) = split(&self, request);
        answer(metadata::model(&self, &requester, &headers, &name, &version))
    }

    async fn model_config(
        self: Arc<Self>,
        request: Request<ModelConfigRequest>,
    ) -> ReplyResult<ModelConfigResponse> {
        let (headers, requester, ModelConfigRequest { name, version }) = split(&self, request);
        answer(control::config(&self, &requester, &headers, &name, &version))
    }

    async fn model_statistics(
        self: Arc<Self>,
        request: Request<ModelStatisticsRequest>,
    ) -> ReplyResult<ModelStatisticsResponse> {
        let (_, requester, ModelStatisticsRequest { name, version }) = split(&self, request);
        answer(control::statistics(&self, &requester, &name, &version))
    }

    async fn repository_index(
        self: Arc<Self>,
        request: Request<RepositoryIndexRequest>,
    ) -> ReplyResult<RepositoryIndexResponse> {
        let (_, requester, request) = split(&self, request);
        answer(control::index(&self, &requester, &request))
    }

    async fn repository_model_load(
        self: Arc<Self>,
        request: Request<RepositoryModelLoadRequest>,
    ) -> ReplyResult<RepositoryModelLoadResponse> {
        let actor = actor(&request);
        let (_, requester, request) = split(&self, request);
        let budget = self.router().budget();
        answer(control::load(self.control_call(requester, actor), budget, request).await)
    }

    async fn repository_model_unload(
        self: Arc<Self>,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> ReplyResult<RepositoryModelUnloadResponse> {
        let actor = actor(&request);
        let (_, requester, request) = split(&self, request);
        answer(control::unload(self.control_call(requester, actor), request).await)
    }

    async fn system_shared_memory_status(
        self: Arc<Self>,
        request: Request<SystemSharedMemoryStatusRequest>,
    ) -> ReplyResult<SystemSharedMemoryStatusResponse> {
        // No region is ever registered.
        answer(match &*request.get_ref().name {
            "" => Ok(SystemSharedMemoryStatusResponse::default()),
            name => Err(no_region("system", name)),
        })
    }

    async fn system_shared_memory_register(
        self: Arc<Self>,
        _: Request<SystemSharedMemoryRegisterRequest>,
    ) -> ReplyResult<SystemSharedMemoryRegisterResponse> {
        not_offered(SHARED_MEMORY)
    }

    async fn system_shared_memory_unregister(
        self: Arc<Self>,
        _: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> ReplyResult<SystemSharedMemoryUnregisterResponse> {
        // No region is ever registered.
        answer(Ok(SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        self: Arc<Self>,
        request: Request<CudaSharedMemoryStatusRequest>,
    ) -> ReplyResult<CudaSharedMemoryStatusResponse> {
        // No region is ever registered.
        answer(match &*request.get_ref().name {
            "" => Ok(CudaSharedMemoryStatusResponse::default()),
            name => Err(no_region("CUDA", name)),
        })
    }

    async fn cuda_shared_memory_register(
        self: Arc<Self>,
        _: Request<CudaSharedMemoryRegisterRequest>,
    ) -> ReplyResult<CudaSharedMemoryRegisterResponse> {
        not_offered(SHARED_MEMORY)
    }

    async fn cuda_shared_memory_unregister(
        self: Arc<Self>,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> ReplyResult<CudaSharedMemoryUnregisterResponse> {
        // No region is ever registered.
        answer(Ok(CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(
        self: Arc<Self>,
        _: Request<TraceSettingRequest>,
    ) -> ReplyResult<TraceSettingResponse> {
        not_offered(TRACES)
    }

    async fn log_settings(
        self: Arc<Self>,
        _: Request<LogSettingsRequest>,
    ) -> ReplyResult<LogSettingsResponse> {
        not_offered(LOGS)
    }
}
