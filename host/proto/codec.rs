//! prost's codec for tonic, with a limit: a message that would take far more memory than its length
//! is refused before it is built.

use super::growth::{self, Shaped};
use prost::Message;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Encodes `T` and decodes `U`.
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        BoundedCodec(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Shaped + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstDecoder::default())
    }
}

/// Counts the memory before it decodes.
pub struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default + Shaped> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        use bytes::Buf;
        check::<U>(buffer.chunk())?;
        self.0.decode(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// The densest message of up to this length takes no more memory than any message may.
const UNCHECKED_BYTES_MAX: usize = 4 << 10;

fn check<U: Shaped>(message: &[u8]) -> Result<(), Status> {
    if message.len() <= UNCHECKED_BYTES_MAX {
        return Ok(());
    }
    let max = growth::allowance(message.len());
    growth::of(U::SHAPE, message, max).map(drop).map_err(|growth::TooMuch| {
        Status::resource_exhausted(format!(
            "the message is too large to be decoded: its {} bytes would take over {} MB of memory; send fewer elements",
            message.len(),
            max >> 20
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::inference::{
        ModelConfig, ModelConfigResponse, ModelInferResponse, ModelInput, RepositoryModelLoadRequest,
    };

    #[test]
    fn a_dense_answer_of_a_remote_is_refused_before_it_is_built() {
        // Outputs, raw contents and parameters of an answer.
        for field in [&[0x2a, 0][..], &[0x32, 0], &[0x22, 5, 0x0a, 1, b'a', 0x12, 0]] {
            let status = check::<ModelInferResponse>(&field.repeat(200_000)).unwrap_err();
            assert_eq!(status.code(), tonic::Code::ResourceExhausted);
            assert!(status.message().starts_with("the message is too large to be decoded"), "{status}");
        }
        let status = check::<RepositoryModelLoadRequest>(&[0x1a, 2, 0x0a, 0].repeat(100_000)).unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    }

    #[test]
    fn the_configuration_of_a_wide_model_is_decoded() {
        let input = |index: usize| ModelInput {
            name: format!("column_{index}"),
            dims: vec![-1, 1],
            ..Default::default()
        };
        let config = ModelConfig { input: (0..2_000).map(input).collect(), ..Default::default() };
        check::<ModelConfigResponse>(&ModelConfigResponse { config: Some(config) }.encode_to_vec()).unwrap();
    }
}
