//! `grpc.health.v1`: whether the host takes requests, for clients that check once or watch.

use super::state::Grpc;
use crate::proto::inference::grpc_inference_service_server::SERVICE_NAME as INFERENCE;
use crate::server::stop::stopped;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tonic::codegen::tokio_stream::Stream;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// The names of services that can be checked. Both mean the host as a whole.
const SERVICES: [&str; 2] = ["", INFERENCE];

/// How often the readiness is polled for clients that watch. It changes when remotes fail or
/// recover, and when the policy is swapped.
const POLL_EVERY: Duration = Duration::from_millis(200);

pub(super) struct Health {
    grpc: Arc<Grpc>,
    /// The readiness at the last poll.
    ready: watch::Receiver<bool>,
}

impl Health {
    /// Spawns the task that polls the readiness for all clients, until the listener stops.
    pub fn new(grpc: &Arc<Grpc>) -> Self {
        let (readiness, ready) = watch::channel(grpc.is_ready());
        tokio::spawn(poll(Arc::clone(grpc), readiness));
        Health { grpc: Arc::clone(grpc), ready }
    }
}

async fn poll(grpc: Arc<Grpc>, readiness: watch::Sender<bool>) {
    let (mut phase, mut stop) = (grpc.readiness.changes(), grpc.stop.clone());
    loop {
        tokio::select! {
            () = tokio::time::sleep(POLL_EVERY) => {}
            Ok(()) = phase.changed() => {}
            () = stopped(&mut stop) => return,
        }
        let now = grpc.is_ready();
        readiness.send_if_modified(|ready| std::mem::replace(ready, now) != now);
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

fn serving(ready: bool) -> HealthCheckResponse {
    response(if ready { ServingStatus::Serving } else { ServingStatus::NotServing })
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if SERVICES.contains(&&*service) {
            return Ok(Response::new(serving(self.grpc.is_ready())));
        }
        let service: String = service.chars().take(80).collect();
        Err(Status::not_found(format!("no service \"{service}\"; ask for \"\" or \"{INFERENCE}\"")))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Sends the readiness and its changes, until the listener stops. An unknown service stays
    /// unknown.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = SERVICES.contains(&&*request.into_inner().service);
        let (sender, receiver) = mpsc::channel(1);
        let (mut changes, mut stop) = (self.ready.clone(), self.grpc.stop.clone());
        changes.mark_unchanged();
        let mut ready = self.grpc.is_ready();
        let send = async move {
            if !known {
                let _ = sender.send(Ok(response(ServingStatus::ServiceUnknown))).await;
                return sender.closed().await;
            }
            while sender.send(Ok(serving(ready))).await.is_ok() {
                let sent = ready;
                while ready == sent {
                    tokio::select! {
                        Ok(()) = changes.changed() => ready = *changes.borrow_and_update(),
                        () = sender.closed() => return,
                    }
                }
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                () = send => {}
                () = stopped(&mut stop) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
