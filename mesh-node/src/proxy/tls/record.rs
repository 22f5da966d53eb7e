//! The TLS 1.3 record layer, sealing and opening in the buffers that sockets read into and write from.
//!
//! In:  traffic secrets that rustls negotiated; buffers with room for header and tail.
//! Out: records, in place: no byte of a payload is copied.
//! Invariant: a sequence number is used once; a record that does not authenticate ends the connection.
//! Source: RFC 8446, section 5 (records, nonces, padding) and 5.5 (limits on key usage).

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;
use std::ops::Range;

/// Bytes before a record's payload: type, version, length.
pub(crate) const HEADER: usize = 5;
/// Bytes after a record's payload: the inner content type and the tag.
pub(crate) const TAIL: usize = 1 + TAG;
/// The longest payload of one record, in bytes.
pub(crate) const MAX_PAYLOAD: usize = 16_384;
/// The longest record that is sent, in bytes.
pub(crate) const MAX_RECORD: usize = HEADER + MAX_PAYLOAD + TAIL;

const TAG: usize = 16;
/// The longest encrypted part a peer may send: RFC 8446, section 5.2.
const MAX_CIPHERTEXT: usize = MAX_PAYLOAD + 256;
/// The longest record a peer may send, in bytes.
pub(crate) const MAX_PEER_RECORD: usize = HEADER + MAX_CIPHERTEXT;
/// Records after which a key is replaced. AES-GCM allows 2^24.5; the margin covers the records in flight.
const RECORDS_PER_KEY: u64 = 1 << 24;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// An alert: two bytes, level and description.
    Alert,
    /// A message of the handshake protocol, after the handshake: a key update.
    Handshake,
    /// Payload.
    Application,
}

impl Content {
    const fn code(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::Application => 23,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            21 => Some(Self::Alert),
            22 => Some(Self::Handshake),
            23 => Some(Self::Application),
            _ => None,
        }
    }
}

/// Why a record could not be sealed or opened. Every one ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// The bytes are no record of an established TLS 1.3 connection.
    #[error("the peer sent bytes that are no TLS record")]
    Malformed,
    /// The record was altered, replayed or sealed with another key.
    #[error("a TLS record does not authenticate")]
    Forged,
    /// The key or the buffer is unusable.
    #[error("a TLS record could not be sealed")]
    Unsealable,
}

/// One direction's key, with the number of the next record.
struct Key {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Key {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Unsealable),
        };
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::Unsealable)?;
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::Unsealable)?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// The nonce of the next record; each is handed out once.
    fn nonce(&mut self) -> Result<Nonce, RecordError> {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence = self.sequence.checked_add(1).ok_or(RecordError::Unsealable)?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Seals the records of one direction.
pub(crate) struct Sealer(Key);

impl Sealer {
    /// A sealer for traffic secrets and the number of the next record.
    ///
    /// **Errors**: the cipher suite is none of TLS 1.3's.
    pub(crate) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        Key::new(secrets).map(Self)
    }

    /// Must the key be replaced before more is sealed?
    pub(crate) const fn is_worn(&self) -> bool {
        self.0.sequence >= RECORDS_PER_KEY
    }

    /// Seals `record[HEADER..HEADER + length]` where it lies and returns the record's length in bytes.
    ///
    /// **Errors**: `length` exceeds [`MAX_PAYLOAD`], or `record` has no room for the tail.
    pub(crate) fn seal(&mut self, content: Content, record: &mut [u8], length: usize) -> Result<usize, RecordError> {
        let whole = HEADER + length + TAIL;
        if length > MAX_PAYLOAD || record.len() < whole {
            return Err(RecordError::Unsealable);
        }
        let size = u16::try_from(length + TAIL).map_err(|_| RecordError::Unsealable)?.to_be_bytes();
        record[..HEADER].copy_from_slice(&[Content::Application.code(), 3, 3, size[0], size[1]]);
        record[HEADER + length] = content.code();
        let nonce = self.0.nonce()?;
        let (header, body) = record.split_at_mut(HEADER);
        let tag = self
            .0
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(&*header), &mut body[..=length])
            .map_err(|_| RecordError::Unsealable)?;
        body[length + 1..][..TAG].copy_from_slice(tag.as_ref());
        Ok(whole)
    }

    /// Puts the record of `payload` behind what is in `out`.
    ///
    /// **Errors**: `payload` exceeds [`MAX_PAYLOAD`].
    pub(crate) fn append(&mut self, out: &mut Vec<u8>, content: Content, payload: &[u8]) -> Result<(), RecordError> {
        let start = out.len();
        out.resize(start + HEADER + payload.len() + TAIL, 0);
        out[start + HEADER..][..payload.len()].copy_from_slice(payload);
        self.seal(content, &mut out[start..], payload.len())?;
        Ok(())
    }
}

/// Opens the records of one direction.
pub(crate) struct Opener(Key);

impl Opener {
    /// An opener for traffic secrets and the number of the next record.
    ///
    /// **Errors**: the cipher suite is none of TLS 1.3's.
    pub(crate) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        Key::new(secrets).map(Self)
    }

    /// Opens one whole record where it lies; returns what it carries and where in `record`.
    ///
    /// **Errors**: the record is malformed or does not authenticate.
    pub(crate) fn open(&mut self, record: &mut [u8]) -> Result<(Content, Range<usize>), RecordError> {
        if record.len() < HEADER + TAIL || record[0] != Content::Application.code() {
            return Err(RecordError::Malformed);
        }
        let nonce = self.0.nonce()?;
        let (header, body) = record.split_at_mut(HEADER);
        let inner = self.0.key.open_in_place(nonce, Aad::from(&*header), body).map_err(|_| RecordError::Forged)?;
        // Padding is zeros after the content type.
        let end = inner.iter().rposition(|&byte| byte != 0).ok_or(RecordError::Malformed)?;
        if end > MAX_PAYLOAD {
            return Err(RecordError::Malformed);
        }
        let content = Content::from_code(inner[end]).ok_or(RecordError::Malformed)?;
        Ok((content, HEADER..HEADER + end))
    }
}

/// The length of the record that `bytes` begin with, once its header is there.
///
/// **Errors**: no record can be that long.
pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let [_, _, _, high, low, ..] = *bytes else { return Ok(None) };
    let size = usize::from(u16::from_be_bytes([high, low]));
    if size > MAX_CIPHERTEXT { Err(RecordError::Malformed) } else { Ok(Some(HEADER + size)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::cipher::{AeadKey, Iv};

    fn secrets() -> (u64, ConnectionTrafficSecrets) {
        let mut key = [0_u8; 32];
        key[..16].copy_from_slice(b"sixteen byte key");
        let key = AeadKey::from(key);
        // Keys are 32 bytes here, so the suite is the one with such keys.
        (0, ConnectionTrafficSecrets::Aes256Gcm { key, iv: Iv::from([7; 12]) })
    }

    fn sealed(sealer: &mut Sealer, content: Content, payload: &[u8]) -> Vec<u8> {
        let mut record = vec![0; MAX_RECORD];
        record[HEADER..HEADER + payload.len()].copy_from_slice(payload);
        let length = sealer.seal(content, &mut record, payload.len()).expect("it fits");
        record.truncate(length);
        record
    }

    #[test]
    fn what_is_sealed_opens_once_and_in_order() {
        let mut sealer = Sealer::new(secrets()).expect("a suite of TLS 1.3");
        let mut opener = Opener::new(secrets()).expect("a suite of TLS 1.3");
        for (content, payload) in [
            (Content::Application, &b"hello"[..]),
            (Content::Application, &[0; MAX_PAYLOAD][..]),
            (Content::Alert, &[1, 0][..]),
            (Content::Handshake, &[24, 0, 0, 1, 0][..]),
        ] {
            let mut record = sealed(&mut sealer, content, payload);
            assert_eq!(length(&record), Ok(Some(record.len())));
            let replay = record.clone();
            let (opened, range) = opener.open(&mut record).expect("it authenticates");
            assert_eq!((opened, &record[range]), (content, payload));
            drop(replay);
        }
    }

    #[test]
    fn what_was_altered_or_replayed_does_not_open() {
        let mut sealer = Sealer::new(secrets()).expect("a suite of TLS 1.3");
        let record = sealed(&mut sealer, Content::Application, b"hello");
        for at in 0..record.len() {
            let mut altered = record.clone();
            altered[at] ^= 1;
            let mut opener = Opener::new(secrets()).expect("a suite of TLS 1.3");
            assert!(opener.open(&mut altered).is_err(), "byte {at}");
        }
        let mut opener = Opener::new(secrets()).expect("a suite of TLS 1.3");
        assert!(opener.open(&mut record.clone()).is_ok());
        assert_eq!(opener.open(&mut record.clone()), Err(RecordError::Forged));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let mut opener = Opener::new(secrets()).expect("a suite of TLS 1.3");
        assert_eq!(opener.open(&mut []), Err(RecordError::Malformed));
        assert_eq!(opener.open(&mut [22; 64]), Err(RecordError::Malformed));
        assert_eq!(length(&[23, 3, 3]), Ok(None));
        assert_eq!(length(&[23, 3, 3, 0xff, 0xff]), Err(RecordError::Malformed));
    }

    #[test]
    fn too_much_is_not_sealed() {
        let mut sealer = Sealer::new(secrets()).expect("a suite of TLS 1.3");
        let mut record = vec![0; MAX_RECORD + 1];
        assert_eq!(sealer.seal(Content::Application, &mut record, MAX_PAYLOAD + 1), Err(RecordError::Unsealable));
        assert_eq!(sealer.seal(Content::Application, &mut [0; 20], 10), Err(RecordError::Unsealable));
    }
}
