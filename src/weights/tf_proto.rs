//! What TensorFlow's files share: the wire format of protocol buffers, element types and shapes.
//!
//! Messages are walked in place. Decoding into structs would allocate many times what the file holds
//! (a byte can become an `i64` in a `Vec`), and what a file makes us allocate has to be bounded.

use super::Element;

/// More sides than any tensor of a network has.
const MOST_SIDES: usize = 32;

/// One value as it lies in a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// Integers, booleans, enums.
    Varint(u64),
    /// `double`, `fixed64`.
    Fixed64(u64),
    /// Texts, messages, packed lists.
    Bytes(&'a [u8]),
    /// `float`, `fixed32`.
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// The bytes of a text or message.
    pub(super) fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(format!("a message or text was expected, not {other:?}")),
        }
    }

    /// The value of an integer field.
    pub(super) fn varint(self) -> Result<u64, String> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err("an integer was expected".into()),
        }
    }
}

/// The fields of a message: number and value, in the order of the file.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), String> {
        let cut = || "a message is cut short".to_owned();
        let (number, wire) = tag(varint(&mut self.rest).ok_or_else(cut)?)?;
        let value = match wire {
            0 => Value::Varint(varint(&mut self.rest).ok_or_else(cut)?),
            1 => {
                let (value, rest) = self.rest.split_first_chunk().ok_or_else(cut)?;
                self.rest = rest;
                Value::Fixed64(u64::from_le_bytes(*value))
            }
            2 => {
                let length = varint(&mut self.rest).ok_or_else(cut)?;
                let length = usize::try_from(length).map_err(|_| cut())?;
                let (value, rest) = self.rest.split_at_checked(length).ok_or_else(cut)?;
                self.rest = rest;
                Value::Bytes(value)
            }
            5 => {
                let (value, rest) = self.rest.split_first_chunk().ok_or_else(cut)?;
                self.rest = rest;
                Value::Fixed32(u32::from_le_bytes(*value))
            }
            _ => return Err(format!("field {number} has the unknown wire type {wire}")),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Field number and wire type.
pub(super) fn tag(tag: u64) -> Result<(u64, u8), String> {
    let number = tag >> 3;
    if number == 0 || number >= 1 << 29 {
        return Err(format!("{number} is no number of a field"));
    }
    Ok((number, (tag & 7) as u8))
}

/// Takes a varint off the front; `None` where it is cut short or longer than 64 bits.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 127);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

/// A `DataType`: the kind of element, or the name of what networks do not use.
pub(super) fn element(dtype: u64) -> Result<Element, &'static str> {
    Ok(match dtype {
        1 => Element::F32,
        2 => Element::F64,
        3 => Element::I32,
        4 => Element::U8,
        5 => Element::I16,
        6 => Element::I8,
        9 => Element::I64,
        10 => Element::Bool,
        14 => Element::BF16,
        19 => Element::F16,
        7 => return Err("string"),
        8 => return Err("complex64"),
        11 => return Err("qint8"),
        12 => return Err("quint8"),
        13 => return Err("qint32"),
        15 => return Err("qint16"),
        16 => return Err("quint16"),
        17 => return Err("uint16"),
        18 => return Err("complex128"),
        20 => return Err("resource"),
        21 => return Err("variant"),
        22 => return Err("uint32"),
        23 => return Err("uint64"),
        _ => return Err("an unknown type"),
    })
}

/// The sides of a `TensorShapeProto`.
pub(super) fn shape(message: &[u8]) -> Result<Vec<usize>, String> {
    let mut sides = Vec::new();
    for field in Fields::new(message) {
        match field? {
            (2, value) => {
                let mut side = 0;
                for field in Fields::new(value.bytes()?) {
                    if let (1, value) = field? {
                        side = value.varint()?;
                    }
                }
                // Sides are signed; -1 is one that is not known.
                let side = i64::try_from(side).ok().and_then(|side| usize::try_from(side).ok());
                sides.push(side.ok_or("a side of its shape is negative")?);
                if sides.len() > MOST_SIDES {
                    return Err(format!("its shape has more than {MOST_SIDES} sides"));
                }
            }
            (3, Value::Varint(unknown)) if unknown != 0 => {
                return Err("its shape is unknown".into());
            }
            _ => {}
        }
    }
    sides.shrink_to_fit();
    Ok(sides)
}

/// Bytes of a tensor, or why there can be no such tensor.
pub(super) fn byte_size(element: Element, shape: &[usize]) -> Result<usize, String> {
    let size = shape.iter().try_fold(element.bytes(), |size, &side| size.checked_mul(side));
    size.filter(|&size| isize::try_from(size).is_ok())
        .ok_or_else(|| format!("its shape {shape:?} is larger than any memory"))
}

/// Elements that are 0 or 1 are so.
pub(super) fn check_bools(element: Element, bytes: &[u8]) -> Result<(), String> {
    match bytes.iter().find(|&&byte| byte > 1) {
        Some(byte) if element == Element::Bool => {
            Err(format!("it holds {byte} where only 0 and 1 can be"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_end_at_64_bits() {
        let read = |mut bytes: &[u8]| varint(&mut bytes);
        assert_eq!(read(&[0x96, 0x01]), Some(150)); // the example of the format's own description
        assert_eq!(read(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]), Some(u64::MAX));
        assert_eq!(read(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 2]), None);
        assert_eq!(read(&[128; 11]), None);
        assert_eq!(read(&[128]), None);
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn fields_are_walked_and_cut_messages_refused() {
        let message =
            [&[0x08, 0x96, 0x01][..], &[0x12, 2, b'h', b'i'], &[0x1d, 1, 0, 0, 0]].concat();
        let fields: Result<Vec<_>, _> = Fields::new(&message).collect();
        let expected =
            vec![(1, Value::Varint(150)), (2, Value::Bytes(b"hi")), (3, Value::Fixed32(1))];
        assert_eq!(fields, Ok(expected));
        for (length, whole) in
            [(1, false), (2, false), (3, true), (5, false), (7, true), (11, false)]
        {
            let fields: Result<Vec<_>, _> = Fields::new(&message[..length]).collect();
            assert_eq!(fields.is_ok(), whole, "{length}");
        }
        assert!(Fields::new(&[0x0b]).next().unwrap().is_err(), "groups");
        assert!(Fields::new(&[0x00]).next().unwrap().is_err(), "field 0");
    }

    #[test]
    fn shapes_that_no_tensor_has_are_refused() {
        assert_eq!(shape(&[0x12, 2, 8, 3, 0x12, 0]), Ok(vec![3, 0]));
        let minus_one = [&[0x12, 11, 8][..], &[255; 9], &[1]].concat();
        assert!(shape(&minus_one).is_err());
        assert!(shape(&[0x18, 1]).is_err());
        assert!(shape(&[0x12, 0].repeat(MOST_SIDES + 1)).is_err());
        assert!(byte_size(Element::F32, &[1 << 40, 1 << 40]).is_err());
        assert_eq!(byte_size(Element::F16, &[3, 5]), Ok(30));
    }
}
