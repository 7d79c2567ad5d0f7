//! A gRPC client for tests, generated from the same protocol file as the host's service.

use super::{Host, PATIENCE, Setup, model};
use bytes::{Buf, BufMut};
use hostler::proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use hostler::proto::inference::model_infer_request::InferInputTensor;
use hostler::proto::inference::*;
use tokio::sync::mpsc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, IntoRequest, Request, Status, Streaming};

pub type Client = GrpcInferenceServiceClient<Channel>;

/// A client with its own connection and the runtime that drives it.
pub struct Caller {
    pub runtime: tokio::runtime::Runtime,
    pub channel: Channel,
    pub client: Client,
}

impl Caller {
    pub fn new(host: &Host) -> Self {
        Self::at(channel(host))
    }

    /// Connects to any endpoint.
    pub fn at(channel: tonic::transport::Endpoint) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let channel = runtime.block_on(channel.connect()).expect("a connection");
        let client = Client::new(channel.clone());
        Caller { runtime, channel, client }
    }

    pub fn run<T>(&self, call: impl AsyncFnOnce(Client) -> T) -> T {
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, call(self.client.clone())).await.expect("an answer in time")
        })
    }

    pub fn infer(&self, request: impl IntoRequest<ModelInferRequest>) -> Result<ModelInferResponse, Status> {
        let request = request.into_request();
        self.run(async |mut client| client.model_infer(request).await.map(tonic::Response::into_inner))
    }

    pub fn stream(&self) -> Stream<'_> {
        let (sender, receiver) = mpsc::channel(1024);
        let answers = self.run(async |mut client| {
            client.model_stream_infer(ReceiverStream::new(receiver)).await.expect("a stream").into_inner()
        });
        Stream { caller: self, sender: Some(sender), answers }
    }
}

pub fn channel(host: &Host) -> tonic::transport::Endpoint {
    endpoint(host.grpc.expect("a gRPC listener"))
}

pub fn endpoint(address: impl std::fmt::Display) -> tonic::transport::Endpoint {
    Channel::from_shared(format!("http://{address}")).expect("an address")
}

/// One `ModelStreamInfer` call.
pub struct Stream<'c> {
    pub caller: &'c Caller,
    pub sender: Option<mpsc::Sender<ModelInferRequest>>,
    pub answers: Streaming<ModelStreamInferResponse>,
}

impl Stream<'_> {
    pub fn send(&self, request: ModelInferRequest) {
        self.sender.as_ref().expect("still open").try_send(request).expect("room");
    }

    pub fn done(&mut self) {
        self.sender = None;
    }

    /// Returns the next response; `None` at the end.
    pub fn next(&mut self) -> Result<Option<ModelStreamInferResponse>, Status> {
        let answers = &mut self.answers;
        self.caller.run(async |_| answers.message().await)
    }

    pub fn answer(&mut self) -> ModelStreamInferResponse {
        self.next().expect("no status yet").expect("not the end yet")
    }
}

pub fn serve(name: &str) -> Host {
    Setup::new("[models.m]\npath = \"m.onnx\"\n").file("m.onnx", model(name)).grpc().start()
}

/// Serves the models `fast` and `loop`; `loop` runs for as long as the request says.
pub fn serve_loop(manifest: &str) -> Host {
    let manifest =
        format!("[models.fast]\npath = \"fast.onnx\"\n[models.loop]\npath = \"loop.onnx\"\n{manifest}");
    let setup = Setup::new(&manifest).file("loop.onnx", model("loop"));
    setup.file("fast.onnx", model("plus1")).grpc().start()
}

pub fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

pub fn request(model: &str, inputs: Vec<InferInputTensor>, raw: Vec<Vec<u8>>) -> ModelInferRequest {
    let raw_input_contents = raw.into_iter().map(Into::into).collect();
    ModelInferRequest { model_name: model.into(), inputs, raw_input_contents, ..Default::default() }
}

pub fn floats(model: &str, values: &[f32]) -> ModelInferRequest {
    let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    request(model, vec![input("x", "FP32", &[values.len() as i64])], vec![raw])
}

pub fn rounds(count: u64) -> ModelInferRequest {
    request("loop", vec![input("n", "INT64", &[1])], vec![count.to_le_bytes().to_vec()])
}

pub fn named(mut request: ModelInferRequest, id: &str) -> ModelInferRequest {
    request.id = id.into();
    request
}

pub fn read(response: &ModelInferResponse) -> Vec<f32> {
    let (elements, rest) = response.raw_output_contents[0].as_chunks::<4>();
    assert!(rest.is_empty());
    elements.iter().map(|element| f32::from_le_bytes(*element)).collect()
}

pub fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, parts: &[&str]) {
    let status = outcome.expect_err("a refusal");
    assert_eq!(status.code(), code, "{status:?}");
    for part in parts {
        assert!(status.message().contains(part), "{}\nlacks {part}", status.message());
    }
}

/// A codec whose messages are arbitrary bytes.
#[derive(Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// Sends raw bytes as messages to a method of the service. Returns its answers and how the call
/// ended.
pub fn send_raw(caller: &Caller, method: &str, messages: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, Result<(), Status>) {
    let path = format!("/inference.GRPCInferenceService/{method}").parse().expect("a path");
    let channel = caller.channel.clone();
    caller.run(async |_| {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.expect("a connection");
        let requests = Request::new(tonic::codegen::tokio_stream::iter(messages));
        let mut answers = match client.streaming(requests, path, Raw).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return (Vec::new(), Err(status)),
        };
        let mut said = Vec::new();
        loop {
            match answers.message().await {
                Ok(Some(answer)) => said.push(answer),
                Ok(None) => return (said, Ok(())),
                Err(status) => return (said, Err(status)),
            }
        }
    })
}
