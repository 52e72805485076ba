//! The primitives of OPC UA Binary (OPC 10000-6, 5.2): numbers are little-endian, texts and lists have their length before
//! them. Reading never allocates more than what has come. Performs no I/O.

/// Length that says that there is nothing, not even something empty.
const NOTHING: u32 = u32::MAX;

/// Bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// They end too early.
    #[error("the message ends where there should be more")]
    Short,
    /// A text is none.
    #[error("a text of the message is not UTF-8")]
    Text,
    /// Something that the specification does not have.
    #[error("the message has {0}, which is not known")]
    Unknown(String),
    /// One inside another inside another.
    #[error("the message is nested too deeply")]
    Deep,
}

/// Reads a message from left to right.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, WireError> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn f64(&mut self) -> Result<f64, WireError> {
        self.array().map(f64::from_le_bytes)
    }

    pub(super) fn bytes(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        match self.u32()? {
            NOTHING => Ok(None),
            length => self.take(length as usize).map(Some),
        }
    }

    pub(super) fn text(&mut self) -> Result<Option<&'a str>, WireError> {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| WireError::Text);
        self.bytes()?.map(text).transpose()
    }

    /// A list; none is an empty one.
    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = match self.u32()? {
            NOTHING => 0,
            count => count,
        };
        // Whatever it is a list of, each of them takes a byte at least.
        if count as usize > self.0.len() {
            return Err(WireError::Short);
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}

/// Writes a message.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(super) fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(super) fn f64(&mut self, value: f64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(bytes.len() as u32).raw(bytes)
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// A text, a byte string or a list that is not there.
    pub(super) fn nothing(&mut self) -> &mut Self {
        self.u32(NOTHING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer
            .u8(1)
            .u16(2)
            .u32(3)
            .i64(-4)
            .f64(0.5)
            .text("ä")
            .nothing()
            .bytes(&[7]);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.u8(), reader.u16(), reader.u32()), (Ok(1), Ok(2), Ok(3)));
        assert_eq!((reader.i64(), reader.f64()), (Ok(-4), Ok(0.5)));
        assert_eq!((reader.text(), reader.text()), (Ok(Some("ä")), Ok(None)));
        assert_eq!(
            (reader.bytes(), reader.u8()),
            (Ok(Some(&[7][..])), Err(WireError::Short))
        );
    }

    #[test]
    fn lengths_are_not_believed() {
        let huge = [0xff, 0xff, 0xff, 0x7f, 1, 2];
        assert_eq!(Reader::new(&huge).bytes(), Err(WireError::Short));
        assert_eq!(Reader::new(&huge).list(Reader::u8), Err(WireError::Short));
        assert_eq!(Reader::new(&[0xff; 4]).list(Reader::u8), Ok(Vec::new()));
        assert_eq!(Reader::new(&[1, 0, 0, 0, 0xff]).text(), Err(WireError::Text));
    }
}
