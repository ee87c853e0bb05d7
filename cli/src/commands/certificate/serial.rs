//! Serial numbers: decimal in the dump, hexadecimal in the table. They have up to twenty bytes.

/// Lower-case hexadecimal of a decimal number; anything else is shown as it is, nothing as `NA`.
pub(super) fn hexadecimal(decimal: &str) -> String {
    if decimal.is_empty() {
        return "NA".to_owned();
    }
    // Base 2^16 digits, least significant first.
    let mut number: Vec<u32> = vec![0];
    for digit in decimal.chars() {
        let Some(digit) = digit.to_digit(10) else { return decimal.to_owned() };
        let mut carry = digit;
        for place in &mut number {
            let value = *place * 10 + carry;
            *place = value & 0xffff;
            carry = value >> 16;
        }
        if carry > 0 {
            number.push(carry);
        }
    }
    let text: String = number.iter().rev().map(|place| format!("{place:04x}")).collect();
    let trimmed = text.trim_start_matches('0');
    if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::hexadecimal;

    #[test]
    fn decimal_becomes_hexadecimal() {
        assert_eq!(hexadecimal("0"), "0");
        assert_eq!(hexadecimal("65536"), "10000");
        assert_eq!(
            hexadecimal("130725414646659908211833921898102325852"),
            "6258cc8eefd8adc1d9b11b1d44bb025c"
        );
        let twenty_bytes = "1461501637330902918203684832716283019655932542975";
        assert_eq!(hexadecimal(twenty_bytes), "f".repeat(40));
        assert_eq!(hexadecimal("12x"), "12x");
        assert_eq!(hexadecimal(""), "NA");
    }
}
