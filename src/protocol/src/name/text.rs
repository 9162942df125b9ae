//! RFC 4514 text of distinguished names: splitting and escaping.

use super::NameError;

/// Splits a name at its unescaped commas and plus signs.
pub(super) fn split_unescaped(text: &str) -> Result<Vec<String>, NameError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        let part = parts.last_mut().ok_or(NameError::Text)?;
        match character {
            _ if escaped => {
                part.push(character);
                escaped = false;
            }
            '\\' => {
                part.push(character);
                escaped = true;
            }
            ',' | '+' => parts.push(String::new()),
            _ => part.push(character),
        }
    }
    Ok(parts)
}

/// RFC 4514 §2.4, §3: `\` before a special character or two hexadecimal digits.
pub(super) fn unescape(value: &str) -> Result<String, NameError> {
    let value = trim_unescaped(value);
    if value.starts_with('#') {
        return Err(NameError::Text);
    }
    let mut octets = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'\\' {
            octets.push(octet);
            continue;
        }
        let first = rest.next().ok_or(NameError::Text)?;
        if b" \"#+,;<=>\\".contains(&first) {
            octets.push(first);
        } else {
            let second = rest.next().ok_or(NameError::Text)?;
            let pair = [first, second];
            let digits = core::str::from_utf8(&pair).map_err(|_| NameError::Text)?;
            octets.extend(crate::hex::decode(digits).ok_or(NameError::Text)?);
        }
    }
    String::from_utf8(octets).map_err(|_| NameError::Text)
}

/// Blanks around a value are layout, unless the last one is escaped.
fn trim_unescaped(value: &str) -> &str {
    let start = value.trim_start();
    let end = start.trim_end();
    if end.ends_with('\\') && end.len() < start.len() {
        start.get(..=end.len()).unwrap_or(start)
    } else {
        end
    }
}

/// Escapes what RFC 4514 §2.4 wants escaped.
pub(super) fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for (index, character) in value.chars().enumerate() {
        let leading_hash = index == 0 && character == '#';
        if leading_hash || "\"+,;<>\\=".contains(character) {
            text.push('\\');
        }
        text.push(character);
    }
    text
}
