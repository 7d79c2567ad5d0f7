//! A model of a remote as a callable: one RPC for each call, which ends with the call.

use super::super::{BoxFuture, Callable, ReferenceFile, Sink};
use super::link::Link;
use super::metadata::{self, Described};
use super::{onnx_file, wire};
use crate::error::{Error, Result};
use crate::predict::{CallContext, Metadata, Tensor};
use crate::proto::inference::ModelReadyRequest;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

/// A remote that is there answers questions about a model within this.
const LOAD_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct RemoteModel {
    link: Arc<Link>,
    name: String,
    version: String,
    metadata: Metadata,
    /// Why the remote cannot run it now, if it cannot.
    unready: RwLock<Option<Arc<str>>>,
}

impl RemoteModel {
    /// Asks the remote what the model is, and holds that against the file that is said to be the same model.
    pub async fn load(
        link: Arc<Link>,
        name: &str,
        version: Option<&str>,
        reference: Option<&ReferenceFile>,
    ) -> Result<Arc<Self>> {
        let Ok(described) = tokio::time::timeout(LOAD_TIMEOUT, metadata::fetch(&link, name, version)).await
        else {
            let waited = LOAD_TIMEOUT.as_secs();
            return Err(Error::unavailable(format!("{} does not answer within {waited} s", link.named())));
        };
        let Described { version, metadata } = described?;
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

    /// Asks whether the remote can run it now; with `closely`, also whether it still is the same model: a remote
    /// that was away may come back with another. True if all is well.
    pub async fn look(&self, closely: bool, timeout: Duration) -> bool {
        let was_unready = self.unready().is_some();
        let look = async {
            let question = ModelReadyRequest { name: self.name.clone(), version: self.version.clone() };
            match self.link.asking().model_ready(question).await {
                Ok(answer) if !answer.get_ref().ready => Some("the remote says that it is not ready".into()),
                Ok(_) if closely || was_unready => self.changed().await,
                Ok(_) => None,
                Err(status) => Some(status.message().to_owned()),
            }
        };
        // Silence says nothing about the model.
        let Ok(unready) = tokio::time::timeout(timeout, look).await else { return !was_unready };
        let is_ready = unready.is_none();
        let mut state = self.unready.write().expect("invariant: no panic under the lock");
        *state = unready.map(Into::into);
        is_ready
    }

    /// What is another than when the model was loaded.
    async fn changed(&self) -> Option<String> {
        match metadata::fetch(&self.link, &self.name, Some(&self.version)).await {
            Err(error) => Some(error.message().to_owned()),
            Ok(now) if now.metadata == self.metadata => None,
            Ok(_) => {
                Some("it has other inputs or outputs than when it was loaded here: reload the policy".into())
            }
        }
    }

    fn unready(&self) -> Option<Arc<str>> {
        self.unready.read().expect("invariant: no panic under the lock").clone()
    }

    fn named(&self) -> String {
        format!("model \"{}\" version {}", self.name, self.version)
    }

    /// Waits for `rpc`, unless the caller leaves, the time is over, or the remote is lost. What is dropped here is
    /// cancelled there.
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
            // Both clocks have run out; the caller's counts.
            Err(stopped) => stopped,
            Ok(()) => error.context(self.named()),
        })
    }

    async fn infer(&self, context: &CallContext, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let message = wire::request(&self.name, &self.version, context, inputs);
        let mut client = self.link.client();
        let answer = client.model_infer(signed(context, message)).await;
        wire::outputs(answer.map_err(|status| self.link.failed(&status))?.into_inner())
    }

    /// Each response goes on as it comes: none is held back to be the last.
    async fn stream(&self, context: &CallContext, inputs: Vec<Tensor>, sink: &mut Sink) -> Result<()> {
        let mut message = wire::request(&self.name, &self.version, context, inputs);
        wire::ask_for_end(&mut message);
        let mut client = self.link.client();
        let requests = tonic::codegen::tokio_stream::once(message);
        let answer = client.model_stream_infer(signed(context, requests)).await;
        let mut responses = answer.map_err(|status| self.link.failed(&status))?.into_inner();
        while let Some(response) = responses.message().await.map_err(|status| self.link.failed(&status))? {
            if !response.error_message.is_empty() {
                return Err(Error::failed(response.error_message).context(self.link.named()));
            }
            let Some(response) = response.infer_response else { continue };
            let (is_last, is_empty) = wire::end(&response);
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

impl Callable for RemoteModel {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The remote sees its parameters.
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

/// With the time that is left and the names by which the request is known elsewhere.
fn signed<T>(context: &CallContext, message: T) -> Request<T> {
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
    if let Some(trace) = &context.trace {
        insert("traceparent", trace);
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
        context.trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        let request = signed(&context, ());
        let header = |name: &str| request.metadata().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("x-request-id"), Some("id-7"));
        assert_eq!(header("traceparent"), context.trace.as_deref());
        assert!(header("grpc-timeout").is_some_and(|left| left.starts_with('4')), "microseconds left");
        context.trace = Some("not\na header".into());
        assert!(signed(&context, ()).metadata().get("traceparent").is_none());
    }
}
