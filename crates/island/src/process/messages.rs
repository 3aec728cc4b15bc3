// SPDX-License-Identifier: Apache-2.0
//! The packets of the control protocol, version 1 (`docs/reference/control.md`).

use serde::{Deserialize, Serialize};

use super::OpenOptions;
use crate::{Identity, IslandError, PeerIdentity, Road, Target};

/// Version of the protocol that this library speaks.
pub const PROTOCOL_VERSION: u32 = 1;
/// Bytes of a packet, either way.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;
/// Channels in one `open` or `claim`.
pub const CLAIMS_PER_PACKET_MAX: usize = 200;
/// The id of `open`.
const OPEN_ID: u64 = 1;
/// The id of requests whose answer, an error at most, nobody waits for.
pub const UNANSWERED_ID: u64 = 0;
/// Connects have this id and the following ones.
pub const FIRST_CONNECT_ID: u64 = 16;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 128;
/// Bytes of a sentence from the backend.
const SENTENCE_BYTES_MAX: usize = 4096;

/// A channel that the endpoint still holds.
#[derive(Clone, Debug, Serialize)]
pub struct Claim {
    pub channel: u64,
    pub peer_number: u32,
    pub peer_name: String,
    pub road: &'static str,
}

/// What the endpoint was at an earlier backend.
#[derive(Debug, Serialize)]
pub struct Resume {
    pub number: u32,
    pub generation: u64,
    pub channels: Vec<Claim>,
}

/// A name or a number.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum TargetWord {
    Name(String),
    Number(u32),
}

impl From<&Target> for TargetWord {
    fn from(target: &Target) -> Self {
        match target {
            Target::Name(name) => Self::Name(name.clone()),
            Target::Number(number) => Self::Number(*number),
        }
    }
}

/// What an endpoint sends.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Request {
    Open {
        id: u64,
        version: u32,
        name: Option<String>,
        number: Option<u32>,
        partition: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<u32>,
        resume: Option<Resume>,
    },
    Claim {
        id: u64,
        channels: Vec<Claim>,
    },
    Connect {
        id: u64,
        target: TargetWord,
        road: &'static str,
        timeout_ms: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<u32>,
    },
    Cancel {
        id: u64,
        target_id: u64,
    },
    Disconnect {
        id: u64,
        channel: u64,
    },
    Info {
        id: u64,
    },
}

impl Request {
    /// Opens an endpoint.
    pub fn open(options: &OpenOptions, resume: Option<Resume>) -> Self {
        Self::Open {
            id: OPEN_ID,
            version: PROTOCOL_VERSION,
            name: options.name.clone(),
            number: options.number,
            partition: options.partition.clone(),
            key: options.key,
            resume,
        }
    }

    /// Opens an endpoint again under the identity that it had.
    pub fn reopen(identity: &Identity, key: Option<u32>, resume: Resume) -> Self {
        Self::Open {
            id: OPEN_ID,
            version: PROTOCOL_VERSION,
            name: Some(identity.name.clone()),
            number: Some(identity.number),
            partition: identity.partition.clone(),
            key,
            resume: Some(resume),
        }
    }

    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        // Maps with other keys than strings and failing `Serialize`s are what could go wrong;
        // there are none in these types.
        serde_json::to_vec(self).expect("plain structs become JSON")
    }
}

/// What the backend sends to an endpoint.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum ReplyWord {
    Opened(OpenedReply),
    Connected {
        id: u64,
        channel: u64,
        peer: PeerWord,
        road: RoadWord,
        reason: String,
        existing: bool,
        #[serde(default)]
        process_vm: bool,
    },
    Introduced {
        channel: u64,
        peer: PeerWord,
        road: RoadWord,
        reason: String,
        #[serde(default)]
        process_vm: bool,
    },
    Gone {
        channel: u64,
        reason: String,
    },
    Error(Refusal),
}

#[derive(Debug, Deserialize)]
struct PeerWord {
    number: u32,
    name: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoadWord {
    Direct,
    Switched,
}

/// The endpoint exists.
#[derive(Debug, Deserialize)]
pub struct OpenedReply {
    pub number: u32,
    pub name: String,
    pub partition: String,
    pub generation: u64,
}

/// A request was refused.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    pub id: u64,
    code: String,
    message: String,
    #[serde(default)]
    hint: Option<String>,
}

/// A reply whose fields are in bounds.
#[derive(Debug)]
pub enum Reply {
    Opened(OpenedReply),
    Connected {
        id: u64,
        channel: u64,
        peer: PeerIdentity,
        road: Road,
        reason: String,
        existing: bool,
        process_vm: bool,
    },
    Introduced {
        channel: u64,
        peer: PeerIdentity,
        road: Road,
        reason: String,
        process_vm: bool,
    },
    Gone {
        channel: u64,
        reason: String,
    },
    Error(Refusal),
}

impl Reply {
    /// Reads a packet.
    ///
    /// # Errors
    /// [`IslandError::BackendMisbehaved`] when it is outside the protocol. Fields that this
    /// version does not know are ignored.
    pub fn parse(packet: &[u8]) -> Result<Self, IslandError> {
        let word: ReplyWord = serde_json::from_slice(packet)
            .map_err(|error| misbehaved(format!("a packet outside the protocol: {error}")))?;
        Ok(match word {
            ReplyWord::Opened(opened) => {
                check_name(&opened.name)?;
                check_name(&opened.partition)?;
                Self::Opened(opened)
            }
            ReplyWord::Connected { id, channel, peer, road, reason, existing, process_vm } => {
                Self::Connected {
                    id,
                    channel: checked_channel(channel)?,
                    peer: peer.checked()?,
                    road: road.into(),
                    reason: checked_sentence(reason)?,
                    existing,
                    process_vm,
                }
            }
            ReplyWord::Introduced { channel, peer, road, reason, process_vm } => Self::Introduced {
                channel: checked_channel(channel)?,
                peer: peer.checked()?,
                road: road.into(),
                reason: checked_sentence(reason)?,
                process_vm,
            },
            ReplyWord::Gone { channel, reason } => {
                Self::Gone { channel, reason: checked_sentence(reason)? }
            }
            ReplyWord::Error(refusal) => {
                checked_sentence(refusal.message.clone())?;
                Self::Error(refusal)
            }
        })
    }
}

impl PeerWord {
    fn checked(self) -> Result<PeerIdentity, IslandError> {
        check_name(&self.name)?;
        Ok(PeerIdentity { number: self.number, name: self.name })
    }
}

impl From<RoadWord> for Road {
    fn from(word: RoadWord) -> Self {
        match word {
            RoadWord::Direct => Self::Direct,
            RoadWord::Switched => Self::Switched,
        }
    }
}

impl From<Refusal> for IslandError {
    fn from(refusal: Refusal) -> Self {
        let what = match &refusal.hint {
            Some(hint) if refusal.code != "denied" => format!("{} ({hint})", refusal.message),
            _ => refusal.message,
        };
        match refusal.code.as_str() {
            "denied" => Self::Denied { what, hint: refusal.hint },
            "busy" => Self::Busy { what },
            "limit" => Self::Limit { what },
            "invalid" => Self::Invalid { what },
            "version" => Self::Version { what },
            "not_found" => Self::NotFound { what },
            "timeout" => Self::Timeout { what },
            "bad_key" => Self::BadKey { what },
            _ => misbehaved(what),
        }
    }
}

fn check_name(name: &str) -> Result<(), IslandError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(misbehaved(format!("a name of {} bytes", name.len())));
    }
    Ok(())
}

fn checked_sentence(sentence: String) -> Result<String, IslandError> {
    if sentence.len() > SENTENCE_BYTES_MAX {
        return Err(misbehaved(format!("a sentence of {} bytes", sentence.len())));
    }
    Ok(sentence)
}

fn checked_channel(channel: u64) -> Result<u64, IslandError> {
    // Zero marks a free line of counters.
    if channel == 0 {
        return Err(misbehaved("a channel numbered 0".into()));
    }
    Ok(channel)
}

fn misbehaved(what: String) -> IslandError {
    IslandError::BackendMisbehaved { what }
}
