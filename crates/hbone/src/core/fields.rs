//! Which header lists are a request, an answer or trailers (RFC 9113 sections 8.1 to 8.5).

use super::hpack::Field;

/// A request, well-formed but not yet judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestHead {
    pub(crate) method: String,
    pub(crate) authority: Option<String>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) content_length: Option<u64>,
}

impl RequestHead {
    /// Octets of its text.
    pub(crate) fn octets(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.method.len() + self.authority.as_ref().map_or(0, String::len) + headers
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnswerHead {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) content_length: Option<u64>,
}

/// The list breaks a rule; the stream is reset with PROTOCOL_ERROR.
pub(crate) type Malformed = &'static str;

#[derive(Default)]
struct Pseudo {
    method: Option<String>,
    scheme: Option<String>,
    authority: Option<String>,
    path: Option<String>,
    status: Option<String>,
}

pub(crate) fn request(fields: Vec<Field>) -> Result<RequestHead, Malformed> {
    let (pseudo, headers, content_length) = split(fields)?;
    if pseudo.status.is_some() {
        return Err(":status in a request");
    }
    let method = pseudo.method.ok_or("no :method")?;
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err("bad :method");
    }
    if method == "CONNECT" {
        if pseudo.scheme.is_some() || pseudo.path.is_some() {
            return Err(":scheme or :path with CONNECT");
        }
    } else if pseudo.scheme.is_none() || pseudo.path.is_none_or(|path| path.is_empty()) {
        return Err("no :scheme or :path");
    }
    if let Some(authority) = &pseudo.authority
        && !is_authority(authority)
    {
        return Err("bad :authority");
    }
    Ok(RequestHead { method, authority: pseudo.authority, headers, content_length })
}

pub(crate) fn answer(fields: Vec<Field>) -> Result<AnswerHead, Malformed> {
    let (pseudo, headers, content_length) = split(fields)?;
    if pseudo.method.is_some()
        || pseudo.scheme.is_some()
        || pseudo.authority.is_some()
        || pseudo.path.is_some()
    {
        return Err("request pseudo header in an answer");
    }
    let text = pseudo.status.ok_or("no :status")?;
    let status = match (text.len(), text.parse::<u16>()) {
        (3, Ok(status)) if status >= 100 && text.bytes().all(|b| b.is_ascii_digit()) => status,
        _ => return Err("bad :status"),
    };
    Ok(AnswerHead { status, headers, content_length })
}

pub(crate) fn trailers(fields: Vec<Field>) -> Result<(), Malformed> {
    if fields.iter().any(|field| field.name.first() == Some(&b':')) {
        return Err("pseudo header in trailers");
    }
    split(fields).map(|_| ())
}

type Split = (Pseudo, Vec<(String, Vec<u8>)>, Option<u64>);

fn split(fields: Vec<Field>) -> Result<Split, Malformed> {
    let mut pseudo = Pseudo::default();
    let mut headers: Vec<(String, Vec<u8>)> = Vec::with_capacity(fields.len());
    let mut content_length = None;
    for Field { name, value } in fields {
        if value.iter().any(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f) {
            return Err("control character in a value");
        }
        if name.first() == Some(&b':') {
            if !headers.is_empty() {
                return Err("pseudo header after a header");
            }
            let slot = match name.as_slice() {
                b":method" => &mut pseudo.method,
                b":scheme" => &mut pseudo.scheme,
                b":authority" => &mut pseudo.authority,
                b":path" => &mut pseudo.path,
                b":status" => &mut pseudo.status,
                _ => return Err("unknown pseudo header"),
            };
            let value = String::from_utf8(value).map_err(|_| "pseudo header is not text")?;
            if slot.replace(value).is_some() {
                return Err("repeated pseudo header");
            }
            continue;
        }
        if name.is_empty() || !name.iter().all(|b| is_token(*b) && !b.is_ascii_uppercase()) {
            return Err("bad header name");
        }
        match name.as_slice() {
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
                return Err("connection-specific header");
            }
            b"te" if value != b"trailers" => return Err("te other than trailers"),
            b"content-length" => {
                let length = decimal(&value).ok_or("bad content-length")?;
                if content_length.replace(length).is_some_and(|before| before != length) {
                    return Err("two content-lengths");
                }
            }
            _ => {}
        }
        let name = String::from_utf8(name).map_err(|_| "bad header name")?;
        headers.push((name, value));
    }
    Ok((pseudo, headers, content_length))
}

fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// RFC 9110 section 5.6.2.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// RFC 3986 section 3.2: optional user info, then a host that is bracketed if it holds colons, then at most one port.
/// Whether host and port mean anything is for the caller to say.
fn is_authority(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&b);
    let host = match text.rsplit_once('@') {
        Some((user, host)) if user.bytes().all(|b| legal(b) || b == b':' || b == b'%') => host,
        Some(_) => return false,
        None => text,
    };
    if host.is_empty() {
        return false;
    }
    let (host, port) = match host.strip_prefix('[') {
        Some(bracketed) => {
            let Some((address, port)) = bracketed.split_once(']') else { return false };
            if !address.bytes().all(|b| legal(b) || b == b':') {
                return false;
            }
            match port.strip_prefix(':') {
                Some(port) => ("", port),
                None if port.is_empty() => ("", ""),
                None => return false,
            }
        }
        None => host.split_once(':').unwrap_or((host, "")),
    };
    host.bytes().all(legal) && port.bytes().all(legal)
}
