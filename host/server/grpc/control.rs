//! Configuration, statistics and the repository, as Triton's clients ask for them.

use super::Grpc;
use crate::error::{Error, Result};
use crate::proto::inference::*;
use hyper::HeaderMap;
use tonic::Request;

fn not_yet<T>(what: &str) -> Result<T> {
    Err(Error::unsupported(format!("{what} is not offered over gRPC")))
}

pub(super) fn config(_: &Grpc, _: &HeaderMap, _: &str, _: &str) -> Result<ModelConfigResponse> {
    not_yet("ModelConfig")
}

pub(super) fn statistics(_: &Grpc, _: &str, _: &str) -> Result<ModelStatisticsResponse> {
    not_yet("ModelStatistics")
}

pub(super) fn index(_: &Grpc, _: RepositoryIndexRequest) -> Result<RepositoryIndexResponse> {
    not_yet("RepositoryIndex")
}

pub(super) async fn load(
    _: &Grpc,
    _: Request<RepositoryModelLoadRequest>,
) -> Result<RepositoryModelLoadResponse> {
    not_yet("RepositoryModelLoad")
}

pub(super) async fn unload(
    _: &Grpc,
    _: Request<RepositoryModelUnloadRequest>,
) -> Result<RepositoryModelUnloadResponse> {
    not_yet("RepositoryModelUnload")
}
