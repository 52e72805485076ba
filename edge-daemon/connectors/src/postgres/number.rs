//! Decimal numbers of any length, and PostgreSQL's binary form of `numeric`. Pure.

/// A finite number: `digits` (no leading zeros) times 10^-`scale`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Number {
    negative: bool,
    digits: Vec<u8>,
    /// Digits after the point; negative when zeros before the point are left out.
    scale: i32,
}

/// PostgreSQL's limits (<https://www.postgresql.org/docs/current/datatype-numeric.html>): digits before and after the point.
const DIGITS_BEFORE_MAX: i32 = 131_072;
const DIGITS_AFTER_MAX: i32 = 16_383;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITY: u16 = 0xd000;
const NEGATIVE_INFINITY: u16 = 0xf000;

impl Number {
    /// `units` times 10^-`scale`.
    pub(crate) fn from_units(units: i128, scale: u8) -> Self {
        let digits = units.unsigned_abs().to_string().into_bytes();
        Self {
            negative: units < 0,
            digits,
            scale: i32::from(scale),
        }
        .without_leading_zeros()
    }

    /// A number as people and programs write it: `-12.50`, `1e300`. `None` when it is something else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim_ascii();
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().ok()?),
            None => (text, 0),
        };
        let negative = mantissa.starts_with('-');
        let mantissa = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits = whole.as_bytes().to_vec();
        digits.extend_from_slice(part.as_bytes());
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let scale = i32::try_from(part.len()).ok()? - i32::from(exponent);
        Some(
            Self {
                negative,
                digits,
                scale,
            }
            .without_leading_zeros(),
        )
    }

    /// The shortest number that is read back as this float. `None` for NaN and the infinities.
    pub(crate) fn from_f64(value: f64) -> Option<Self> {
        value
            .is_finite()
            .then(|| Self::parse(&format!("{value:?}")))
            .flatten()
            .map(Self::shortest)
    }

    /// As [`Number::from_f64`].
    pub(crate) fn from_f32(value: f32) -> Option<Self> {
        value
            .is_finite()
            .then(|| Self::parse(&format!("{value:?}")))
            .flatten()
            .map(Self::shortest)
    }

    fn without_leading_zeros(mut self) -> Self {
        let zeros = self.digits.iter().take_while(|digit| **digit == b'0').count();
        self.digits.drain(..zeros);
        self.negative &= !self.digits.is_empty();
        self
    }

    /// The same number without zeros at its end: equal numbers become equal values.
    pub(crate) fn shortest(mut self) -> Self {
        while self.digits.last() == Some(&b'0') {
            self.digits.pop();
            self.scale -= 1;
        }
        if self.digits.is_empty() {
            self.scale = 0;
        }
        self
    }

    /// Digits after the point that are needed to write it; negative when it ends in zeros before the point.
    pub(crate) fn scale_needed(&self) -> i32 {
        self.clone().shortest().scale
    }

    /// Digits before the point.
    pub(crate) fn digits_before(&self) -> i32 {
        (self.digits.len() as i32 - self.scale).max(0)
    }

    /// The number without exponent. A caller bounds its digits.
    pub(crate) fn plain(&self) -> String {
        let mut digits = String::from_utf8_lossy(&self.digits).into_owned();
        let after = usize::try_from(self.scale).unwrap_or(0);
        if self.scale < 0 && !digits.is_empty() {
            digits.push_str(&"0".repeat(self.scale.unsigned_abs() as usize));
        }
        let digits = format!("{digits:0>width$}", width = after + 1);
        let (whole, part) = digits.split_at(digits.len() - after);
        let (sign, point) = (
            if self.negative { "-" } else { "" },
            if part.is_empty() { "" } else { "." },
        );
        format!("{sign}{whole}{point}{part}")
    }

    /// The number as an integer, if it is one that fits.
    pub(super) fn to_i64(&self) -> Option<i64> {
        self.to_i128().and_then(|whole| i64::try_from(whole).ok())
    }

    /// The number as an integer, if it is one of at most about twenty digits.
    pub(crate) fn to_i128(&self) -> Option<i128> {
        let short = self.clone().shortest();
        let zeros = usize::try_from(-short.scale).ok().filter(|zeros| *zeros < 20)?;
        let sign = if short.negative { "-" } else { "" };
        let digits = String::from_utf8(short.digits)
            .ok()
            .filter(|digits| !digits.is_empty())
            .unwrap_or("0".into());
        format!("{sign}{digits}{}", "0".repeat(zeros)).parse().ok()
    }

    /// Appends PostgreSQL's binary form: digits of base 10,000 and the place of the first. Fails beyond its limits.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), String> {
        let before = self.digits.len() as i32 - self.scale;
        if before > DIGITS_BEFORE_MAX || self.scale > DIGITS_AFTER_MAX {
            return Err("the number has more digits than PostgreSQL's numeric can hold".to_string());
        }
        // Groups of four stand around the point: fill up with zeros on both sides.
        let left = (4 - before.rem_euclid(4)) % 4;
        let mut decimal = vec![b'0'; left as usize];
        decimal.extend_from_slice(&self.digits);
        decimal.resize(decimal.len().next_multiple_of(4), b'0');
        let group = |four: &[u8]| {
            four.iter()
                .fold(0u16, |value, digit| value * 10 + u16::from(digit - b'0'))
        };
        let mut groups: Vec<u16> = decimal.chunks(4).map(group).collect();
        let mut weight = (before + left) / 4 - 1;
        let zeros = groups.iter().take_while(|group| **group == 0).count();
        groups.drain(..zeros);
        weight -= zeros as i32;
        while groups.last() == Some(&0) {
            groups.pop();
        }
        if groups.is_empty() {
            weight = 0;
        }
        let sign = if self.negative { NEGATIVE } else { 0 };
        header(out, groups.len() as u16, weight as i16, sign, self.scale.max(0) as u16);
        groups
            .iter()
            .for_each(|group| out.extend_from_slice(&group.to_be_bytes()));
        Ok(())
    }
}

/// Appends a float that is not finite.
pub(super) fn write_not_finite(value: f64, out: &mut Vec<u8>) {
    let sign = match value {
        _ if value.is_nan() => NAN,
        _ if value > 0.0 => INFINITY,
        _ => NEGATIVE_INFINITY,
    };
    header(out, 0, 0, sign, 0);
}

fn header(out: &mut Vec<u8>, groups: u16, weight: i16, sign: u16, scale: u16) {
    for field in [groups, weight as u16, sign, scale] {
        out.extend_from_slice(&field.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups, weight, sign, scale, digits as PostgreSQL's `numeric_send` gives them.
    fn binary(number: &Number) -> Vec<u16> {
        let mut bytes = Vec::new();
        number.write(&mut bytes).unwrap();
        bytes
            .chunks(2)
            .map(|two| u16::from_be_bytes([two[0], two[1]]))
            .collect()
    }

    #[test]
    fn binary_form_is_postgresqls() {
        let minus_one = 0xffff;
        for (text, wanted) in [
            ("0", vec![0, 0, 0, 0]),
            ("0.00", vec![0, 0, 0, 2]),
            ("1", vec![1, 0, 0, 0, 1]),
            ("-12.50", vec![2, 0, 0x4000, 2, 12, 5000]),
            ("10000", vec![1, 1, 0, 0, 1]),
            ("123456789", vec![3, 2, 0, 0, 1, 2345, 6789]),
            ("0.0001", vec![1, minus_one, 0, 4, 1]),
            ("0.00001", vec![1, 0xfffe, 0, 5, 1000]),
            ("1e8", vec![1, 2, 0, 0, 1]),
            ("1.5e-3", vec![1, minus_one, 0, 4, 15]),
        ] {
            assert_eq!(binary(&Number::parse(text).unwrap()), wanted, "{text}");
        }
        let limit = Number::parse("1e16383").unwrap();
        assert_eq!(binary(&limit)[..2], [1, 4095]);
        assert!(Number::parse("1e-20000").unwrap().write(&mut Vec::new()).is_err());
    }

    #[test]
    fn equal_numbers_are_equal() {
        for (a, b) in [
            ("1.50", "1.5"),
            ("100", "1e2"),
            ("-0", "0.000"),
            ("007", "7"),
            ("+.5", "0.5"),
        ] {
            assert_eq!(
                Number::parse(a).unwrap().shortest(),
                Number::parse(b).unwrap().shortest(),
                "{a} {b}"
            );
        }
        for text in ["", ".", "1.2.3", "0x10", "inf", "NaN", "1e", "1e99999", "--1", "1 2"] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
        assert_eq!(Number::from_f64(0.1), Number::parse("0.1"));
        assert_eq!(Number::from_f64(3.0), Number::parse("3"));
        assert_eq!(Number::from_units(i128::MIN, 38).scale_needed(), 38);
        for (text, plain, before) in [
            ("0", "0", 0),
            ("-12.50", "-12.50", 2),
            ("1e3", "1000", 4),
            ("1.5e-3", "0.0015", 0),
            ("-0.0", "0.0", 0),
        ] {
            let number = Number::parse(text).unwrap();
            assert_eq!(
                (number.plain().as_str(), number.digits_before()),
                (plain, before),
                "{text}"
            );
        }
        for (text, wanted) in [
            ("12.00", Some(12)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("0.0", Some(0)),
            ("1e3", Some(1000)),
            ("1.5", None),
            ("9223372036854775808", None),
            ("1e40", None),
        ] {
            assert_eq!(Number::parse(text).unwrap().to_i64(), wanted, "{text}");
        }
    }
}
