//! Two roles in one component. As a model it decodes a JPEG into pixels, so that a hostile file
//! costs a request its instance of this plugin instead of crashing the host. As the pipeline's
//! transformer it takes a JPEG as the body of a request and returns the detected objects as JSON.

use hostler_plugin::{
    Blob, Datatype, Error, Model, ModelMetadata, Payload, Request, Tensor, Transformer, tensor,
};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// The width and height of the detector's input, in pixels.
const SIDE: usize = 64;

/// Larger pictures are refused before they are decoded.
const SIDE_MAX: usize = 4096;

const LABELS: [&str; 3] = ["red", "green", "blue"];

struct Vision;

hostler_plugin::export!(Vision: model, transformer);

impl Model for Vision {
    fn metadata() -> ModelMetadata {
        let side = SIDE as i64;
        ModelMetadata {
            inputs: vec![tensor::spec("jpeg", Datatype::Bytes, &[1])],
            outputs: vec![tensor::spec("pixels", Datatype::Uint8, &[side, side, 3])],
        }
    }

    fn predict(_: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let jpeg = inputs[0].to_bytes()?.pop().unwrap_or_default();
        let side = SIDE as i64;
        Ok(vec![tensor::uint8("pixels", &[side, side, 3], &decoded(&jpeg)?)?])
    }
}

/// Returns the picture scaled to `SIDE` by `SIDE` pixels, by nearest neighbour.
fn decoded(jpeg: &[u8]) -> Result<Vec<u8>, Error> {
    let options = DecoderOptions::default()
        .jpeg_set_out_colorspace(ColorSpace::RGB)
        .set_max_width(SIDE_MAX)
        .set_max_height(SIDE_MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    let refused = |error: &dyn std::fmt::Display| {
        Error::invalid("jpeg", format!("not a JPEG that can be read: {error}"))
    };
    let pixels = decoder.decode().map_err(|error| refused(&error))?;
    let (width, height) = decoder.dimensions().ok_or_else(|| refused(&"it has no size"))?;
    let at = |x: usize, y: usize| 3 * (y * height / SIDE * width + x * width / SIDE);
    let places = (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (x, y)));
    Ok(places.flat_map(|(x, y)| pixels[at(x, y)..at(x, y) + 3].to_vec()).collect())
}

impl Transformer for Vision {
    fn preprocess(_: &Request, input: Payload) -> Result<Vec<Tensor>, Error> {
        match input {
            Payload::Bytes(Blob { data, .. }) => Ok(vec![tensor::bytes("jpeg", &[1], &[data])?]),
            Payload::Tensors(tensors) => Ok(tensors),
            Payload::Json(_) => {
                Err(Error::invalid_input("send the JPEG itself as the body, with content-type image/jpeg"))
            }
        }
    }

    fn postprocess(_: &Request, outputs: Vec<Tensor>) -> Result<Payload, Error> {
        let boxes = tensor::named(&outputs, "boxes")?.to_i64()?;
        let classes = tensor::named(&outputs, "classes")?.to_i64()?;
        let found: Vec<String> = boxes
            .chunks(4)
            .zip(classes)
            .map(|(corners, class)| {
                let label = LABELS.get(class as usize).copied().unwrap_or("unknown");
                format!("{{\"label\":\"{label}\",\"box\":{corners:?}}}")
            })
            .collect();
        Ok(Payload::Json(format!("[{}]", found.join(","))))
    }
}
