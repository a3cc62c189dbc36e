//! Words that columns hold: a few with a meaning here, and whatever else a server or somebody's file says.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An enum of words. It reads as its text does (`Deref`), and any text becomes one (`From`).
macro_rules! words {
    (
        $(#[$about:meta])*
        pub enum $name:ident { $($(#[$word_about:meta])* $word:ident = $text:literal,)* }
    ) => {
        $(#[$about])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$word_about])* $word,)*
            /// In its own word.
            Other(String),
        }

        impl $name {
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$word => $text,)*
                    Self::Other(word) => word,
                }
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word {
                    $($text => Self::$word,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($text => Self::$word,)*
                    _ => Self::Other(word),
                }
            }
        }

        impl Default for $name {
            /// No word.
            fn default() -> Self {
                Self::Other(String::new())
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::from)
            }
        }
    };
}

words! {
    /// How a completion ended.
    pub enum FinishReason {
        /// By itself.
        Stop = "stop",
        /// At its token limit.
        Length = "length",
    }
}

words! {
    /// What log-probabilities are the logarithms of.
    pub enum LogprobSpace {
        /// Softmax of the teacher's own logits, before any penalty, temperature or filter.
        Raw = "raw",
        /// Softmax of the logits divided by the temperature.
        Tempered = "tempered",
        /// Whatever the server makes of them: it does not say.
        Server = "server",
    }
}

words! {
    /// Whose turn of a conversation it is.
    pub enum Role {
        System = "system",
        User = "user",
        Assistant = "assistant",
        /// What a tool answered.
        Tool = "tool",
    }
}
