//! A model of a remote as a callable. Each call is one RPC, which is cancelled when the call ends.

use super::link::{Link, WatchedModel};
use super::metadata::{self, RemoteDescription};
use super::{onnx_file, wire};
use crate::error::{Error, Result};
use crate::executor::callable::{BoxFuture, CallProfile, Callable};
use crate::executor::sink::Sink;
use crate::executor::source::ReferenceFile;
use crate::lock::ReadWriteUnpoisoned;
use crate::predict::{CallContext, Metadata, Tensor, TraceLink};
use crate::proto::inference::ModelReadyRequest;
use crate::traces::SpanKind;
use smallvec::smallvec;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

/// The time within which a remote must describe a model when it is loaded.
const LOAD_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct RemoteModel {
    link: Arc<Link>,
    name: String,
    version: String,
    metadata: Metadata,
    /// The reason why the remote cannot run the model now. `None` if it is ready.
    unready: RwLock<Option<Arc<str>>>,
}

impl RemoteModel {
    /// Fetches the description of the model from the remote, and compares it with the reference
    /// file, if there is one.
    pub async fn load(
        link: Arc<Link>,
        name: &str,
        version: Option<&str>,
        reference: Option<&ReferenceFile>,
    ) -> Result<Arc<Self>> {
        let Ok(description) = tokio::time::timeout(LOAD_TIMEOUT, metadata::fetch(&link, name, version)).await
        else {
            let waited = LOAD_TIMEOUT.as_secs();
            return Err(Error::unavailable(format!("{} does not answer within {waited} s", link.named())));
        };
        let RemoteDescription { version, metadata } = description?;
        if let Some(reference) = reference {
            let there = format!("the model \"{name}\" version {version} at {}", link.named());
            onnx_file::compare(reference, &there, &metadata)?;
        }
        Ok(Arc::new(RemoteModel {
            link,
            name: name.to_owned(),
            version,
            metadata,
            unready: RwLock::default(),
        }))
    }

    /// Asks the remote whether the model is ready. A remote that was away may be back with another
    /// model under the same name, so the metadata is compared too if the remote `has_reconnected`
    /// or the model was not ready.
    async fn refresh_readiness(&self, has_reconnected: bool, timeout: Duration) -> bool {
        let was_unready = self.unready().is_some();
        let check = async {
            let request = ModelReadyRequest { name: self.name.clone(), version: self.version.clone() };
            match self.link.control_client().model_ready(request).await {
                Ok(answer) if !answer.get_ref().ready => {
                    Some("the remote reports that it is not ready".into())
                }
                Ok(_) if has_reconnected || was_unready => self.changed().await,
                Ok(_) => None,
                Err(status) => Some(status.message().to_owned()),
            }
        };
        // Without an answer, the known readiness stays.
        let Ok(unready) = tokio::time::timeout(timeout, check).await else { return !was_unready };
        let is_ready = unready.is_none();
        let mut state = self.unready.write_unpoisoned();
        *state = unready.map(Into::into);
        is_ready
    }

    /// Returns the reason why this is not the model that was loaded. `None` if it is.
    async fn changed(&self) -> Option<String> {
        match metadata::fetch(&self.link, &self.name, Some(&self.version)).await {
            Err(error) => Some(error.message().to_owned()),
            Ok(now) if now.metadata == self.metadata => None,
            Ok(_) => {
                Some("its inputs or outputs have changed since it was loaded here: reload the policy".into())
            }
        }
    }

    fn unready(&self) -> Option<Arc<str>> {
        self.unready.read_unpoisoned().clone()
    }

    fn named(&self) -> String {
        format!("model \"{}\" version {}", self.name, self.version)
    }

    /// Waits for `rpc`, until the call is cancelled, its deadline passes, or the remote is away. An
    /// RPC that is dropped here is cancelled at the remote.
    async fn guarded<T>(&self, context: &CallContext, rpc: impl Future<Output = Result<T>>) -> Result<T> {
        let outcome = tokio::select! {
            biased;
            outcome = rpc => outcome,
            () = context.cancellation.cancelled() => {
                return Err(context.stopped().expect("invariant: it was cancelled"));
            }
            lost = self.link.lost() => Err(lost),
        };
        outcome.map_err(|error| match context.check() {
            // The call has ended too, and its own reason is the one to report.
            Err(stopped) => stopped,
            Ok(()) => error.context(self.named()),
        })
    }

    async fn infer(&self, context: &CallContext, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let message = wire::request(&self.name, &self.version, context, inputs);
        let (mut client, trace) = (self.link.client(), self.trace(context));
        let answer = client.model_infer(with_headers(context, &trace, message)).await;
        let answer = answer.map_err(|status| self.link.failed(&status));
        self.end_span(&trace, answer.as_ref().err());
        wire::outputs(answer?.into_inner())
    }

    /// Sends each response as it arrives. None is kept as the last one to return.
    async fn stream(&self, context: &CallContext, inputs: Vec<Tensor>, sink: &mut Sink) -> Result<()> {
        let trace = self.trace(context);
        let outcome = self.stream_within(context, &trace, inputs, sink).await;
        self.end_span(&trace, outcome.as_ref().err());
        outcome
    }

    /// Begins the span of a call of the remote.
    fn trace(&self, context: &CallContext) -> TraceLink {
        context.trace.inner(SpanKind::Client, || format!("remote {}", self.name))
    }

    /// Records the span of a call of the remote.
    fn end_span(&self, trace: &TraceLink, error: Option<&Error>) {
        if let Some(span) = trace.span() {
            let attributes =
                smallvec![("rpc.system", "grpc".into()), ("hostler.remote.model", self.name.as_str().into())];
            span.end(attributes, error.map(Error::message));
        }
    }

    async fn stream_within(
        &self,
        context: &CallContext,
        trace: &TraceLink,
        inputs: Vec<Tensor>,
        sink: &mut Sink,
    ) -> Result<()> {
        let mut message = wire::request(&self.name, &self.version, context, inputs);
        wire::request_final_marker(&mut message);
        let mut client = self.link.client();
        let requests = tonic::codegen::tokio_stream::once(message);
        let answer = client.model_stream_infer(with_headers(context, trace, requests)).await;
        let mut responses = answer.map_err(|status| self.link.failed(&status))?.into_inner();
        while let Some(response) = responses.message().await.map_err(|status| self.link.failed(&status))? {
            if !response.error_message.is_empty() {
                return Err(Error::failed(response.error_message).context(self.link.named()));
            }
            let Some(response) = response.infer_response else { continue };
            let (is_last, is_empty) = wire::final_marker(&response);
            if !(is_last && is_empty) {
                sink.send(wire::outputs(response)?).await?;
            }
            if is_last {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl WatchedModel for RemoteModel {
    fn refresh(&self, has_reconnected: bool, timeout: Duration) -> BoxFuture<'_, bool> {
        Box::pin(self.refresh_readiness(has_reconnected, timeout))
    }
}

impl Callable for RemoteModel {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn profile(&self) -> CallProfile {
        CallProfile::Delegated
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    /// Returns true: the remote sees the parameters of the request.
    fn reads_request(&self) -> bool {
        true
    }

    fn ready(&self) -> Result<()> {
        self.link.check()?;
        match self.unready() {
            None => Ok(()),
            Some(why) => Err(Error::unavailable(format!("{}: {}: {why}", self.link.named(), self.named()))),
        }
    }

    fn call<'a>(
        &'a self,
        context: &'a Arc<CallContext>,
        inputs: Vec<Tensor>,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>> {
        Box::pin(async move {
            self.ready()?;
            match self.metadata.streaming {
                true => self.guarded(context, self.stream(context, inputs, sink)).await.map(|()| None),
                false => self.guarded(context, self.infer(context, inputs)).await.map(Some),
            }
        })
    }
}

/// Adds the headers of a call to a message: the remaining time, the request id and the trace.
fn with_headers<T>(context: &CallContext, trace: &TraceLink, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(left) = context.time_left() {
        request.set_timeout(left);
    }
    let mut insert = |key: &'static str, value: &str| {
        if let Ok(value) = value.parse::<MetadataValue<Ascii>>() {
            request.metadata_mut().insert(key, value);
        }
    };
    insert("x-request-id", &context.id);
    if let Some(parent) = trace.traceparent() {
        insert("traceparent", &parent);
        trace.tracestate().into_iter().for_each(|state| insert("tracestate", state));
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_request_carries_its_names_and_the_time_that_is_left() {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut context = CallContext::new("id-7".into(), "m".into(), "1".into(), Some(deadline));
        const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = |parent: &str| TraceLink::new(Some(parent.into()), Some("a=b".into()), None);
        context.trace = trace(PARENT);
        let request = with_headers(&context, &context.trace, ());
        let header = |name: &str| request.metadata().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("x-request-id"), Some("id-7"));
        assert_eq!((header("traceparent"), header("tracestate")), (Some(PARENT), Some("a=b")));
        assert!(header("grpc-timeout").is_some_and(|left| left.starts_with('4')), "microseconds left");
        let bad = trace("not\na header");
        assert!(with_headers(&context, &bad, ()).metadata().get("traceparent").is_none());
    }
}
