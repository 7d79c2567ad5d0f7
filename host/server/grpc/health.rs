//! `grpc.health.v1`: whether the host takes requests, for whoever asks once or watches.

use super::Grpc;
use crate::server::stopped;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::Stream;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// What can be asked about: the host as a whole, under either name.
const SERVICES: [&str; 2] = ["", super::SERVICE];

pub(super) struct Health(pub Arc<Grpc>);

impl Health {
    fn now(&self) -> HealthCheckResponse {
        response(match self.0.is_ready() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        })
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if SERVICES.contains(&&*service) {
            return Ok(Response::new(self.now()));
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
        let (health, mut stop) = (Health(Arc::clone(&self.0)), self.0.stop.clone());
        let tell = async move {
            if !known {
                let _ = sender.send(Ok(response(ServingStatus::ServiceUnknown))).await;
                return sender.closed().await;
            }
            let mut changes = health.0.readiness.changes();
            loop {
                changes.borrow_and_update();
                if sender.send(Ok(health.now())).await.is_err() || changes.changed().await.is_err() {
                    return;
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
