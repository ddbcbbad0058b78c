//! Applies a delta to a base.

use crate::delta::COPY_BYTES_MAX;

/// The reason why a delta does not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeltaError {
    /// It ends within its sizes or an instruction.
    #[error("a delta is cut off")]
    Truncated,
    /// A size takes more than 64 bits.
    #[error("a delta names a size that no object has")]
    Size,
    /// It was made for an object of another size.
    #[error("a delta is for a base of {expected} bytes, and this one has {actual}")]
    Base {
        /// The size in the delta.
        expected: u64,
        /// The size of the base.
        actual: u64,
    },
    /// A copy reaches beyond the base.
    #[error("a delta copies what its base has not")]
    Copy,
    /// The reserved instruction 0.
    #[error("a delta holds an instruction that is not defined")]
    Reserved,
    /// Its result is shorter or longer than the size in the delta.
    #[error("a delta makes an object of another size than it says")]
    Target,
    /// There is not enough memory.
    #[error("no memory for an object of {bytes} bytes")]
    Memory {
        /// The size of the result in the delta.
        bytes: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instruction<'a> {
    Copy { offset: usize, length: usize },
    Insert(&'a [u8]),
}

/// The sizes at the start of a delta: of its base and of its result.
pub(crate) fn sizes(mut delta: &[u8]) -> Result<(u64, u64), DeltaError> {
    Ok((take_size(&mut delta)?, take_size(&mut delta)?))
}

/// Empties `output` and writes the result of `delta` on `base` to it.
pub(crate) fn apply(base: &[u8], delta: &[u8], output: &mut Vec<u8>) -> Result<(), DeltaError> {
    output.clear();
    let mut rest = delta;
    let expected = take_size(&mut rest)?;
    let actual = base.len() as u64;
    if expected != actual {
        return Err(DeltaError::Base { expected, actual });
    }
    let bytes = take_size(&mut rest)?;
    let size = usize::try_from(bytes).map_err(|_| DeltaError::Size)?;
    let reserved = output.try_reserve_exact(size);
    reserved.map_err(|_| DeltaError::Memory { bytes })?;
    while let Some(instruction) = take_instruction(&mut rest)? {
        let piece = match instruction {
            Instruction::Insert(piece) => piece,
            Instruction::Copy { offset, length } => {
                let end = offset.checked_add(length).ok_or(DeltaError::Copy)?;
                base.get(offset..end).ok_or(DeltaError::Copy)?
            }
        };
        if piece.len() > size - output.len() {
            return Err(DeltaError::Target);
        }
        output.extend_from_slice(piece);
    }
    if output.len() == size {
        Ok(())
    } else {
        Err(DeltaError::Target)
    }
}

/// Reads a size off the front: seven bits a byte, the lowest first.
fn take_size(rest: &mut &[u8]) -> Result<u64, DeltaError> {
    let mut size = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = take_byte(rest)?;
        let bits = u64::from(byte & 0x7f);
        if bits.leading_zeros() < shift {
            return Err(DeltaError::Size);
        }
        size |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(size);
        }
    }
    Err(DeltaError::Size)
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, DeltaError> {
    let (first, others) = rest.split_first().ok_or(DeltaError::Truncated)?;
    *rest = others;
    Ok(*first)
}

/// Reads an instruction off the front; `None` at the end.
fn take_instruction<'a>(rest: &mut &'a [u8]) -> Result<Option<Instruction<'a>>, DeltaError> {
    let Some((head, others)) = rest.split_first() else {
        return Ok(None);
    };
    *rest = others;
    if *head == 0 {
        return Err(DeltaError::Reserved);
    }
    if head & 0x80 == 0 {
        let split = rest.split_at_checked(usize::from(*head));
        let (piece, others) = split.ok_or(DeltaError::Truncated)?;
        *rest = others;
        return Ok(Some(Instruction::Insert(piece)));
    }
    // The bytes of offset and size that have a flag, the lowest first.
    let mut numbers = [0_usize; 2];
    for bit in 0..7 {
        if head & (1 << bit) != 0 {
            let byte = usize::from(take_byte(rest)?);
            let (number, place) = if bit < 4 { (0, bit) } else { (1, bit - 4) };
            numbers[number] |= byte << (8 * place);
        }
    }
    let [offset, length] = numbers;
    let length = if length == 0 { COPY_BYTES_MAX } else { length };
    Ok(Some(Instruction::Copy { offset, length }))
}
