//! `grpc.health.v1`: whether the host takes requests, for whoever asks once or watches.

use super::Grpc;
use crate::server::stopped;
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

/// What can be asked about: the host as a whole, under either name.
const SERVICES: [&str; 2] = ["", super::SERVICE];

/// How often the host looks whether it is ready, for those who watch: remotes go and come, policies are swapped.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(super) struct Health {
    grpc: Arc<Grpc>,
    /// As it was at the last look.
    ready: watch::Receiver<bool>,
}

impl Health {
    /// Looks until the listener stops, once for all who watch.
    pub fn new(grpc: &Arc<Grpc>) -> Self {
        let (readiness, ready) = watch::channel(grpc.is_ready());
        tokio::spawn(look(Arc::clone(grpc), readiness));
        Health { grpc: Arc::clone(grpc), ready }
    }
}

async fn look(grpc: Arc<Grpc>, readiness: watch::Sender<bool>) {
    let (mut draining, mut stop) = (grpc.readiness.changes(), grpc.stop.clone());
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            Ok(()) = draining.changed() => {}
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
        Err(Status::not_found(format!("no service \"{service}\"; ask for \"\" or \"{}\"", super::SERVICE)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Ends when the host stops listening. A service that is not known stays so.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = SERVICES.contains(&&*request.into_inner().service);
        let (sender, receiver) = mpsc::channel(1);
        let (mut looks, mut stop) = (self.ready.clone(), self.grpc.stop.clone());
        looks.mark_unchanged();
        let mut said = self.grpc.is_ready();
        let tell = async move {
            if !known {
                let _ = sender.send(Ok(response(ServingStatus::ServiceUnknown))).await;
                return sender.closed().await;
            }
            while sender.send(Ok(serving(said))).await.is_ok() {
                let before = said;
                while said == before {
                    tokio::select! {
                        Ok(()) = looks.changed() => said = *looks.borrow_and_update(),
                        () = sender.closed() => return,
                    }
                }
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                () = tell => {}
                () = stopped(&mut stop) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
