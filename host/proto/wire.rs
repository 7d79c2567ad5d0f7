//! Protobuf's wire format: iterates over the fields of a message without building anything.
//!
//! It accepts what prost accepts, so a count made with it covers all that prost would build.

use std::fmt;

/// The deepest nesting of groups; prost's own limit.
const GROUPS_MAX: usize = 100;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    /// A string, bytes, a message, or a packed list.
    Bytes(&'a [u8]),
    /// Obsolete, and unknown to every message here. Its content is skipped.
    Group,
}

/// Why bytes are not a valid message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Malformed(&'static str);

impl Malformed {
    /// A known field has another wire type than it should.
    pub const WIRE_TYPE: Self = Malformed("invalid wire type");
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The fields of a message, in the order sent. Ends with the first error.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn of(message: &'a [u8]) -> Self {
        Fields { rest: message }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = field(&mut self.rest);
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), Malformed> {
    let (number, wire_type) = key(rest)?;
    let value = match wire_type {
        0 => Value::Varint(varint(rest)?),
        1 => Value::Fixed64(fixed(rest)?),
        2 => Value::Bytes(delimited(rest)?),
        3 => {
            skip_group(rest, number, GROUPS_MAX)?;
            Value::Group
        }
        4 => return Err(Malformed("unexpected end group tag")),
        5 => Value::Fixed32(fixed(rest)?),
        _ => return Err(Malformed("invalid wire type")),
    };
    Ok((number, value))
}

fn key(rest: &mut &[u8]) -> Result<(u32, u32), Malformed> {
    let key = u32::try_from(varint(rest)?).map_err(|_| Malformed("invalid field number"))?;
    match key >> 3 {
        0 => Err(Malformed("invalid field number 0")),
        number => Ok((number, key & 7)),
    }
}

/// Reads a varint: seven bits in each byte, the lowest first.
pub fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    // Most varints have one byte.
    if let [byte @ 0..0x80, tail @ ..] = *rest {
        *rest = tail;
        return Ok((*byte).into());
    }
    let mut value = 0;
    for (index, &byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *rest = &rest[index + 1..];
            return if index == 9 && byte > 1 { Err(Malformed("invalid varint")) } else { Ok(value) };
        }
    }
    Err(Malformed("invalid varint"))
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (value, tail) = rest.split_first_chunk().ok_or(Malformed("buffer underflow"))?;
    *rest = tail;
    Ok(*value)
}

fn delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(varint(rest)?).ok();
    let split = length.and_then(|length| rest.split_at_checked(length));
    let (content, tail) = split.ok_or(Malformed("buffer underflow"))?;
    *rest = tail;
    Ok(content)
}

fn skip_group(rest: &mut &[u8], number: u32, depth_left: usize) -> Result<(), Malformed> {
    let depth_left = depth_left.checked_sub(1).ok_or(Malformed("recursion limit reached"))?;
    loop {
        let (inner, wire_type) = key(rest)?;
        match wire_type {
            0 => drop(varint(rest)?),
            1 => drop(fixed::<8>(rest)?),
            2 => drop(delimited(rest)?),
            3 => skip_group(rest, inner, depth_left)?,
            4 if inner == number => return Ok(()),
            4 => return Err(Malformed("unexpected end group tag")),
            5 => drop(fixed::<4>(rest)?),
            _ => return Err(Malformed("invalid wire type")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_their_order() {
        let message = [
            0x08, 0x96, 0x01, // 1: 150
            0x12, 0x02, b'h', b'i', // 2: "hi"
            0x1d, 1, 2, 3, 4, // 3: four bytes
            0x21, 1, 2, 3, 4, 5, 6, 7, 8, // 4: eight bytes
            0x2b, 0x08, 0x01, 0x33, 0x34, 0x2c, // 5: a group with another one in it
        ];
        let fields: Vec<_> = Fields::of(&message).map(Result::unwrap).collect();
        let expected = [
            (1, Value::Varint(150)),
            (2, Value::Bytes(b"hi")),
            (3, Value::Fixed32([1, 2, 3, 4])),
            (4, Value::Fixed64([1, 2, 3, 4, 5, 6, 7, 8])),
            (5, Value::Group),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_is_no_message_ends_with_an_error() {
        let deep = [&[0x0b; GROUPS_MAX + 1][..], &[0x0c; GROUPS_MAX + 1]].concat();
        let long = [0x80; 11];
        for bytes in [
            &[0x00][..],
            &[0x07],
            &[0x08],
            &[0x0c],
            &[0x12, 3, 1],
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[0x0b, 0x14],
            &[0x0b],
            &long,
            &deep,
        ] {
            let fields: Vec<_> = Fields::of(bytes).collect();
            assert!(fields.last().unwrap().is_err(), "{bytes:?}: {fields:?}");
        }
    }
}
