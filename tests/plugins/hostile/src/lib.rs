//! A plugin that misbehaves on request, to test that the host withstands it. The request's
//! parameter `do` selects the fault; see `examples/hostile`. By default the fault occurs in every
//! call that the request makes to the plugin; the parameter `at` (`preprocess`, `predict`,
//! `postprocess`) selects one.
//!
//! It is a transformer and a model, and passes everything on when it does not misbehave: any JSON
//! goes through the model as one element of bytes and is returned unchanged.

mod misdeed;
mod snoop;
mod version;

use hostler_plugin::{
    Blob, Datatype, Error, Model, ModelMetadata, Payload, Request, Tensor, Transformer, tensor,
};

use misdeed::{Answer, keep, misdeed};

struct Hostile;

hostler_plugin::export!(Hostile: transformer, model);

impl Transformer for Hostile {
    fn preprocess(request: &Request, input: Payload) -> Result<Vec<Tensor>, Error> {
        match misdeed(request, "preprocess")? {
            Some(Answer::Tensors(tensors)) => return Ok(tensors),
            Some(Answer::Json(_)) | None => {}
        }
        match input {
            Payload::Json(text) => Ok(vec![data(text.as_bytes())?]),
            Payload::Bytes(blob) => {
                request.set_note(format!("bytes {}", blob.content_type).as_bytes());
                Ok(vec![data(&blob.data)?])
            }
            Payload::Tensors(tensors) => {
                keep(request, "preprocess", &tensors)?;
                request.set_note(b"tensors");
                Ok(tensors)
            }
        }
    }

    fn postprocess(request: &Request, outputs: Vec<Tensor>) -> Result<Payload, Error> {
        match misdeed(request, "postprocess")? {
            Some(Answer::Json(text)) => return Ok(Payload::Json(text)),
            Some(Answer::Tensors(tensors)) => return Ok(Payload::Tensors(tensors)),
            None => {}
        }
        let note = String::from_utf8_lossy(&request.note()).into_owned();
        if note == "tensors" {
            return Ok(Payload::Tensors(outputs));
        }
        let element = tensor::named(&outputs, "data")?.to_bytes()?.concat();
        match note.strip_prefix("bytes ") {
            Some(content_type) => {
                Ok(Payload::Bytes(Blob { content_type: content_type.into(), data: element }))
            }
            None => String::from_utf8(element)
                .map(Payload::Json)
                .map_err(|_| Error::failed("the model changed the text")),
        }
    }
}

impl Model for Hostile {
    fn metadata() -> ModelMetadata {
        let data = || tensor::spec("data", Datatype::Bytes, &[-1]);
        ModelMetadata { inputs: vec![data()], outputs: vec![data()] }
    }

    fn predict(request: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        version::misbehave(request)?;
        keep(request, "predict", &inputs)?;
        match misdeed(request, "predict")? {
            Some(Answer::Tensors(tensors)) => Ok(tensors),
            Some(Answer::Json(_)) | None => Ok(inputs),
        }
    }
}

fn data(element: &[u8]) -> Result<Tensor, Error> {
    tensor::bytes("data", &[1], &[element])
}
