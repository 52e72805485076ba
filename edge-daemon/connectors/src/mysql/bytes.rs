//! Numbers and lengths as the binary log writes them. Never reads past the end: that is [`Broken`].

/// What an event breaks off in, or what in it is nothing known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the log has a {0} that cannot be read")]
pub(super) struct Broken(pub &'static str);

/// Bytes that are read from the front.
#[derive(Debug, Clone)]
pub(super) struct Bytes<'a> {
    bytes: &'a [u8],
    /// What they are, for messages.
    what: &'static str,
}

impl<'a> Bytes<'a> {
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, what }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Broken(self.what))?;
        self.bytes = rest;
        Ok(taken)
    }

    /// A number of at most 8 bytes, the lowest first.
    pub(super) fn number(&mut self, count: usize) -> Result<u64, Broken> {
        let bytes = self.take(count)?.iter().rev();
        Ok(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A number of at most 8 bytes, the highest first.
    pub(super) fn big_endian(&mut self, count: usize) -> Result<u64, Broken> {
        let bytes = self.take(count)?.iter();
        Ok(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A number whose first byte says how long it is.
    pub(super) fn count(&mut self) -> Result<usize, Broken> {
        let number = match self.number(1)? {
            0xfc => self.number(2)?,
            0xfd => self.number(3)?,
            0xfe => self.number(8)?,
            0xfb | 0xff => return Err(Broken(self.what)),
            small => small,
        };
        usize::try_from(number).map_err(|_| Broken(self.what))
    }

    /// Bytes after their number.
    pub(super) fn counted(&mut self) -> Result<&'a [u8], Broken> {
        let count = self.count()?;
        self.take(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let mut bytes = Bytes::new(&[1, 2, 0xfc, 1, 1, 0xfd, 0, 0, 1, 3, 7, 8, 9, 0xfb], "test");
        assert_eq!(bytes.number(2), Ok(0x0201));
        assert_eq!((bytes.count(), bytes.count()), (Ok(257), Ok(65_536)));
        assert_eq!(bytes.counted(), Ok(&[7, 8, 9][..]));
        assert_eq!(bytes.clone().big_endian(1), Ok(0xfb));
        assert_eq!(bytes.count(), Err(Broken("test")));
        assert_eq!(bytes.take(1), Err(Broken("test")));
    }
}
