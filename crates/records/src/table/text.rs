//! Rows of JSON text: an object on each line, or the items of one array.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::{Item, Packed, Seen, json};
use crate::error::{Error, Result, io as failed};
use crate::stamps::Reading;

/// Bytes of a row that are read at most: it may hold several texts of the largest size.
const MAX_ROW: usize = 512 << 20;

/// What is kept between rows, so that one hostile row does not stay until the end.
const KEPT_BYTES: usize = 1 << 20;

/// Opens a file for reading its text.
pub(super) fn open(path: &Path, packed: Packed) -> io::Result<Box<dyn BufRead>> {
    let file = Reading::open(path)?;
    Ok(match packed {
        Packed::Plain => Box::new(BufReader::with_capacity(1 << 20, file)),
        Packed::Gzip => Box::new(BufReader::with_capacity(
            1 << 20,
            flate2::read::MultiGzDecoder::new(BufReader::new(file)),
        )),
        Packed::Zstandard => Box::new(BufReader::with_capacity(1 << 20, zstd::Decoder::new(file)?)),
    })
}

pub(super) fn read<E: From<Error>>(
    path: &Path,
    packed: Packed,
    columns: Option<&[&str]>,
    each: &mut dyn FnMut(u64, Item) -> Result<bool, E>,
) -> Result<Seen, E> {
    let mut rows = Rows::open(path, packed).map_err(failed(path))?;
    let mut seen = Seen::default();
    let mut number = 0;
    loop {
        let piece = rows.next().map_err(failed(path))?;
        let item = match piece {
            Piece::End => break,
            Piece::Blank => {
                number += 1;
                continue;
            }
            Piece::TooLong => unreadable("a row of more than 512 MiB"),
            Piece::Torn => unreadable("the array is not closed"),
            Piece::Row => match json::parse(&rows.row, columns, &mut seen.unread) {
                Ok(parsed) => {
                    if parsed.mended {
                        seen.mended += 1;
                        seen.first_mended.get_or_insert(number + 1);
                    }
                    Item::Row(parsed.row)
                }
                Err((reason, problem)) => Item::Unreadable { reason, problem },
            },
        };
        number += 1;
        rows.row.clear();
        rows.row.shrink_to(KEPT_BYTES);
        if !each(number, item)? {
            return Ok(seen);
        }
    }
    seen.whole = true;
    Ok(seen)
}

fn unreadable(reason: &'static str) -> Item {
    Item::Unreadable {
        reason,
        problem: reason.to_owned(),
    }
}

/// What was read into [`Rows::row`].
enum Piece {
    Row,
    Blank,
    TooLong,
    /// The end of the file came before the end of the array.
    Torn,
    End,
}

struct Rows {
    reader: Box<dyn BufRead>,
    row: Vec<u8>,
    /// Items of an array; lines otherwise.
    array: bool,
    ended: bool,
}

impl Rows {
    fn open(path: &Path, packed: Packed) -> io::Result<Self> {
        let mut reader = open(path, packed)?;
        if reader.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
            reader.consume(3);
        }
        // White space before an array is none of its rows; before a line it may hold lines.
        let start = reader.fill_buf()?;
        let blank = start
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        let array = start.get(blank) == Some(&b'[');
        if array {
            reader.consume(blank + 1);
        }
        Ok(Self {
            reader,
            row: Vec::new(),
            array,
            ended: false,
        })
    }

    fn next(&mut self) -> io::Result<Piece> {
        match self.array {
            true => self.item(),
            false => self.line(),
        }
    }

    fn line(&mut self) -> io::Result<Piece> {
        let limit = MAX_ROW as u64 + 1;
        let read = (&mut self.reader)
            .take(limit)
            .read_until(b'\n', &mut self.row)?;
        if read == 0 {
            return Ok(Piece::End);
        }
        if read as u64 == limit && !self.row.ends_with(b"\n") {
            self.reader.skip_until(b'\n')?;
            return Ok(Piece::TooLong);
        }
        let from = self.row.len() - self.row.trim_ascii_start().len();
        self.row.drain(..from);
        self.row.truncate(self.row.trim_ascii_end().len());
        Ok(match self.row.is_empty() {
            true => Piece::Blank,
            false => Piece::Row,
        })
    }

    /// An item ends at a comma or bracket outside of texts and of brackets of its own.
    fn item(&mut self) -> io::Result<Piece> {
        let (mut depth, mut in_string, mut escaped) = (0_u64, false, false);
        let mut too_long = false;
        while !self.ended {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                self.ended = true;
                return Ok(Piece::Torn);
            }
            let mut end = None;
            for (at, &byte) in buffer.iter().enumerate() {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if in_string => escaped = true,
                    b'"' => in_string = !in_string,
                    _ if in_string => {}
                    b'{' | b'[' => depth += 1,
                    b',' | b']' if depth == 0 => {
                        end = Some((at, byte == b']'));
                        break;
                    }
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            let taken = end.map_or(buffer.len(), |(at, _)| at);
            if self.row.len() + taken > MAX_ROW {
                too_long = true;
                self.row.clear();
            } else if !too_long {
                self.row.extend_from_slice(&buffer[..taken]);
            }
            self.reader.consume(taken + usize::from(end.is_some()));
            let Some((_, last)) = end else { continue };
            self.ended = last;
            if too_long {
                return Ok(Piece::TooLong);
            }
            let blank = self.row.trim_ascii().is_empty();
            match (blank, last) {
                // An empty array, or a comma behind the last item.
                (true, true) => return Ok(Piece::End),
                (true, false) => return Ok(Piece::Blank),
                _ => return Ok(Piece::Row),
            }
        }
        Ok(Piece::End)
    }
}
