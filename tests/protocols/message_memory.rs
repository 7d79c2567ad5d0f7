//! How much memory a gRPC message may take: dense messages that would exceed the bound are refused,
//! and ordinary messages of the same size are served.

use crate::support::grpc::*;
use crate::support::{Host, Setup, model};
use flate2::Compression;
use flate2::read::GzEncoder;
use hostler::proto::inference::*;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use std::io::Read;
use tonic::Code;

const BODY_MB: usize = 4;

/// Four times the largest message, plus the message itself, plus what threads and the allocator
/// take on first use.
const GROWTH_KB_MAX: u64 = ((BODY_MB as u64) * (4 + 1) + 10) * 1024;

fn start() -> Host {
    let manifest = format!(
        "[server]\nmax_body_mb = {BODY_MB}\nmodel_control = \"explicit\"\n\
         [models.m]\npath = \"m.onnx\"\n[models.types]\npath = \"types.onnx\"\n"
    );
    let setup = Setup::new(&manifest).file("m.onnx", model("plus1"));
    setup.file("types.onnx", model("datatypes")).grpc().start()
}

/// Encodes a length-delimited field.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut bytes);
    encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

/// Repeats `unit` until a message has no space left beside `room` bytes.
fn filled(unit: &[u8], room: usize) -> Vec<u8> {
    unit.repeat(((BODY_MB << 20) - room) / unit.len())
}

/// Encodes parameters with different names, until the message is full.
fn parameters(number: u32) -> Vec<u8> {
    let (mut all, mut index) = (Vec::new(), 0);
    loop {
        let entry = [field(1, format!("{index:x}").as_bytes()), field(2, &[0x10, 0])].concat();
        let entry = field(number, &entry);
        if all.len() + entry.len() > (BODY_MB << 20) - 64 {
            return all;
        }
        all.extend(entry);
        index += 1;
    }
}

/// Encodes a request with one input of this datatype, with contents.
fn typed(datatype: &str, contents: &[u8]) -> Vec<u8> {
    let input = [field(1, b"x"), field(2, datatype.as_bytes()), field(5, contents)].concat();
    [field(1, b"m"), field(5, &input)].concat()
}

struct Case {
    method: &'static str,
    message: Vec<u8>,
    code: Code,
    part: &'static str,
}

fn check(cases: impl IntoIterator<Item = Case>) {
    for Case { method, message, code, part } in cases {
        let host = start();
        let caller = Caller::new(&host);
        assert_eq!(read(&caller.infer(floats("m", &[1.0])).unwrap()), [2.0]);
        let start: Vec<u8> = message.iter().take(24).copied().collect();
        let (growth, (answers, end)) = host.peak_growth_kb(|| send_raw(&caller, method, vec![message]));
        // On a stream, an error of a request that could be identified is sent as a message.
        let said = answers.first().filter(|_| method == "ModelStreamInfer");
        let said = said.map(|answer| ModelStreamInferResponse::decode(&answer[..]).unwrap().error_message);
        let end = match said {
            Some(message) => Err(tonic::Status::new(code, message)),
            None => end,
        };
        match code {
            Code::Ok => assert!(end.is_ok(), "{method} {start:?}: {end:?}"),
            code => {
                let status = end.expect_err("a refusal");
                assert_eq!(status.code(), code, "{method} {start:?}: {status:?}");
                assert!(status.message().contains(part), "{method} {start:?}: {}", status.message());
            }
        }
        assert!(growth <= GROWTH_KB_MAX, "{method} {start:?}: {growth} kB for {GROWTH_KB_MAX}");
        assert_eq!(read(&caller.infer(floats("m", &[1.0])).unwrap()), [2.0]);
    }
}

/// Returns requests that are each denser in memory than on the wire.
fn dense() -> Vec<(Vec<u8>, Code, &'static str)> {
    let named = |rest: Vec<u8>| [field(1, b"m"), rest].concat();
    let exhausted = Code::ResourceExhausted;
    let shape =
        |dimensions: Vec<u8>| named(field(5, &[field(1, b"x"), field(2, b"FP32"), dimensions].concat()));
    vec![
        (filled(&[0x2a, 0], 0), exhausted, "4 times max_body_mb"),
        (filled(&[0x32, 0], 0), exhausted, "4 times max_body_mb"),
        (filled(&[0x3a, 0], 0), exhausted, "4 times max_body_mb"),
        (named(parameters(4)), exhausted, "4 times max_body_mb"),
        (named(field(5, &parameters(4))), exhausted, "4 times max_body_mb"),
        (named(field(6, &parameters(2))), exhausted, "4 times max_body_mb"),
        (shape(filled(&[0x18, 1], 64)), exhausted, "4 times max_body_mb"),
        (shape(field(3, &filled(&[1], 64))), exhausted, "4 times max_body_mb"),
        (named(filled(&field(5, &field(5, b"")), 64)), exhausted, "4 times max_body_mb"),
        (typed("BYTES", &filled(&[0x42, 0], 64)), Code::InvalidArgument, "elements in bytes_contents, got"),
        (
            typed("INT64", &field(3, &filled(&[1], 64))),
            Code::InvalidArgument,
            "elements in int64_contents, got",
        ),
        (typed("BOOL", &filled(&[0x08, 1], 64)), Code::InvalidArgument, "elements in bool_contents, got"),
        (named(filled(&[0x78, 0], 64)), exhausted, "4 times max_body_mb"),
        (named(filled(&[0x7b, 0x7c], 64)), exhausted, "4 times max_body_mb"),
        (field(1, &filled(b"n", 64)), Code::NotFound, "no model"),
    ]
}

#[test]
fn dense_messages_stay_within_the_bound() {
    check(dense().into_iter().map(|(message, code, part)| Case {
        method: "ModelInfer",
        message,
        code,
        part,
    }));
}

#[test]
fn dense_messages_of_a_stream_stay_within_the_bound() {
    let dense = dense().into_iter().filter(|(_, code, _)| *code == Code::ResourceExhausted);
    check(dense.map(|(message, code, part)| Case { method: "ModelStreamInfer", message, code, part }));
}

#[test]
fn dense_messages_of_other_methods_stay_within_the_bound() {
    let exhausted = Code::ResourceExhausted;
    let case = |method, message, code, part| Case { method, message, code, part };
    let setting = field(1, &[field(1, b"s"), field(2, &filled(&[0x0a, 0], 64))].concat());
    check([
        case("RepositoryModelLoad", parameters(3), exhausted, "too large to be decoded"),
        case("RepositoryModelUnload", parameters(3), exhausted, "too large to be decoded"),
        case("TraceSetting", setting, exhausted, "too large to be decoded"),
        case("LogSettings", parameters(1), exhausted, "too large to be decoded"),
        case("ModelMetadata", filled(&[0x78, 0], 0), exhausted, "too large to be decoded"),
        case("ModelReady", field(1, &filled(b"n", 64)), Code::Ok, ""),
    ]);
}

#[test]
fn a_small_message_that_unpacks_to_a_dense_one_stays_within_the_bound() {
    let mut packed = Vec::new();
    let dense = filled(&[0x2a, 0], 0);
    GzEncoder::new(&dense[..], Compression::fast()).read_to_end(&mut packed).unwrap();
    let host = start();
    let caller = Caller::new(&host);
    assert_eq!(read(&caller.infer(floats("m", &[1.0])).unwrap()), [2.0]);
    let channel = caller.channel.clone();
    let (growth, status) = host.peak_growth_kb(|| {
        caller.run(async |_| {
            let mut client =
                tonic::client::Grpc::new(channel).send_compressed(tonic::codec::CompressionEncoding::Gzip);
            client.ready().await.unwrap();
            let path = "/inference.GRPCInferenceService/ModelInfer".parse().unwrap();
            client.unary(tonic::Request::new(dense), path, Raw).await.unwrap_err()
        })
    });
    assert!(packed.len() < 64 << 10, "{} bytes", packed.len());
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(growth <= GROWTH_KB_MAX, "{growth} kB for {GROWTH_KB_MAX}");
}

#[test]
fn ordinary_messages_of_the_same_size_are_answered() {
    let host = start();
    let caller = Caller::new(&host);
    let infer = |request: ModelInferRequest| {
        caller.run(async |client| {
            let mut client = client.max_decoding_message_size(usize::MAX);
            client.model_infer(request).await.map(tonic::Response::into_inner)
        })
    };
    let values: Vec<f32> = (0..1_000_000).map(|index| (index % 1000) as f32).collect();
    let expected: Vec<f32> = values.iter().map(|value| value + 1.0).collect();
    assert_eq!(read(&infer(floats("m", &values)).unwrap()), expected);
    let contents = InferTensorContents { fp32_contents: values.clone(), ..Default::default() };
    let mut typed = input("x", "FP32", &[values.len() as i64]);
    typed.contents = Some(contents);
    let request = request("m", vec![typed], vec![]);
    assert!(request.encoded_len() > (BODY_MB << 20) * 9 / 10);
    assert_eq!(read(&infer(request.clone()).unwrap()), expected);

    let (answers, end) = send_raw(&caller, "ModelStreamInfer", vec![request.encode_to_vec(); 2]);
    end.unwrap();
    assert_eq!(answers.len(), 2);
    for answer in answers {
        let answer = ModelStreamInferResponse::decode(&answer[..]).unwrap();
        assert_eq!(read(&answer.infer_response.unwrap()), expected);
    }
}

#[test]
fn contents_that_come_in_parts_are_one_tensor() {
    let host = start();
    let caller = Caller::new(&host);
    let part =
        |value: f32| InferTensorContents { fp32_contents: vec![value], ..Default::default() }.encode_to_vec();
    let fields = [field(1, b"x"), field(2, b"FP32"), field(3, &[2])];
    let input = [fields.concat(), field(5, &part(1.0)), field(5, &part(2.0))].concat();
    let message = [field(1, b"m"), field(5, &input)].concat();
    let (answers, end) = send_raw(&caller, "ModelInfer", vec![message]);
    end.unwrap();
    assert_eq!(read(&ModelInferResponse::decode(&answers[0][..]).unwrap()), [2.0, 3.0]);
    let broken = [field(1, b"m"), field(5, &[fields.concat(), field(5, &[0x32, 9])].concat())].concat();
    let (_, end) = send_raw(&caller, "ModelInfer", vec![broken]);
    refused(end, Code::InvalidArgument, &["input \"x\": its contents cannot be read: "]);
}
