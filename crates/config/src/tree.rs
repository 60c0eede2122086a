//! YAML, of which JSON is a part, as a tree whose every node knows its line and column, so that whatever is found
//! wrong with a value later can be shown where it stands.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Number, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use crate::file::Unreadable;
use crate::resource::Invalid;
use crate::wording::advised;

/// How many nodes a file may have once its aliases are written out: far above any real file, far below what would
/// exhaust memory (the "billion laughs").
const MOST_NODES: usize = 1_000_000;
/// The keys of a mapping of fewer are compared one by one.
const FEW: usize = 16;
/// How deep the nodes of a file may be nested, aliases written out.
const MOST_LEVELS: usize = 128;

/// A line and a column, each from 1; columns count characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value and where it begins.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) data: Data,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    /// Null, a boolean, a number or text.
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// What YAML allows and the configuration does not, and why.
    Wrong(String),
}

/// A key of a mapping with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

impl Node {
    /// Reads the one document of a file.
    pub(crate) fn parse(text: &str) -> Result<Self, Unreadable> {
        Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), left: MOST_NODES }.document()
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// The first part that JSON cannot have, such as a key given twice: its path from here, and why.
    pub(crate) fn wrong(&self) -> Option<Invalid> {
        let (mut path, why) = self.wrong_at()?;
        path.reverse();
        let path = path.concat();
        Some(Invalid::new(path.strip_prefix('.').unwrap_or(&path).to_owned(), why.to_owned()))
    }

    /// Where that is, the last part of the way first, and why.
    fn wrong_at(&self) -> Option<(Vec<String>, &str)> {
        let of = |(mut path, why): (Vec<String>, _), part| {
            path.push(part);
            (path, why)
        };
        match &self.data {
            Data::Scalar(_) => None,
            Data::Wrong(why) => Some((Vec::new(), why)),
            Data::List(nodes) => {
                let mut nodes = nodes.iter().enumerate();
                nodes.find_map(|(index, node)| Some(of(node.wrong_at()?, format!("[{index}]"))))
            }
            Data::Map(entries) => {
                let mut entries = entries.iter();
                entries.find_map(|entry| Some(of(entry.node.wrong_at()?, format!(".{}", entry.key))))
            }
        }
    }

    /// Where the field with this path from here stands (`rules[0].timeouts.request`): its key or its value. As near
    /// as the path leads, where it leads beyond what is there.
    pub(crate) fn find(&self, path: &str, key: bool) -> Place {
        let mut place = self.place;
        let (mut node, mut rest) = (self, path);
        loop {
            let path = rest.strip_prefix('.').unwrap_or(rest);
            let next = match &node.data {
                Data::Map(entries) => entry_at(entries, path),
                Data::List(nodes) => node_at(nodes, path),
                _ => None,
            };
            let Some((at, child, tail)) = next else { return place };
            place = if key && tail.is_empty() { at } else { child.place };
            (node, rest) = (child, tail);
        }
    }
}

/// JSON, of which nobody knows where it stands.
impl From<Value> for Node {
    fn from(value: Value) -> Self {
        let place = Place::default();
        let data = match value {
            Value::Array(list) => Data::List(list.into_iter().map(Self::from).collect()),
            Value::Object(map) => {
                let entry = |(key, value)| Entry { key, place, node: Self::from(value) };
                Data::Map(map.into_iter().map(entry).collect())
            }
            scalar => Data::Scalar(scalar),
        };
        Self { place, data }
    }
}

/// The entry whose key the path begins with, the last where it is given twice, and the rest of the path.
fn entry_at<'a, 'p>(entries: &'a [Entry], path: &'p str) -> Option<(Place, &'a Node, &'p str)> {
    let tail = |entry: &Entry| {
        path.strip_prefix(entry.key.as_str()).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let entry = entries.iter().filter(|entry| tail(entry).is_some()).max_by_key(|entry| entry.key.len())?;
    Some((entry.place, &entry.node, tail(entry)?))
}

fn node_at<'a, 'p>(nodes: &'a [Node], path: &'p str) -> Option<(Place, &'a Node, &'p str)> {
    let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
    let node = nodes.get(index.parse::<usize>().ok()?)?;
    Some((node.place, node, rest))
}

/// Builds the tree from the parser's events.
struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    /// How many nodes more there may be.
    left: usize,
}

impl<'a> Reader<'a> {
    fn document(mut self) -> Result<Node, Unreadable> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                _ if root.is_some() => {
                    return Err(unreadable(
                        place(&span),
                        "a second document: a file has one, without `---` between",
                    ));
                }
                event => root = Some(self.node(event, &span, 0)?),
            }
        }
        root.ok_or_else(|| unreadable(Place { line: 1, column: 1 }, "there is nothing in it"))
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Unreadable> {
        loop {
            match self.parser.next_event() {
                Some(Ok((event, span))) => {
                    // Comments and anchors' names are events only if options or features say so.
                    if event.is_node() || is_frame(&event) {
                        return Ok((event, span));
                    }
                }
                Some(Err(error)) => {
                    return Err(unreadable(marker(error.marker()), &advised(&error.info())));
                }
                None => return Ok((Event::StreamEnd, Span::default())),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, level: usize) -> Result<Node, Unreadable> {
        let place = place(span);
        if level > MOST_LEVELS {
            return Err(unreadable(place, "nested too deeply"));
        }
        self.spend(1, place)?;
        let (data, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(text, style, tag.as_deref()), anchor),
            Event::SequenceStart(_, anchor, _) => (self.list(level)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.map(level)?, anchor),
            Event::Alias(anchor) => (self.alias(anchor, level, place)?, 0),
            _ => (Data::Wrong("not a value".into()), 0),
        };
        let node = Node { place, data };
        if anchor != 0 {
            self.spend(size(&node).0, place)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, level: usize) -> Result<Data, Unreadable> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd | Event::StreamEnd, _) => return Ok(Data::List(nodes)),
                (event, span) => nodes.push(self.node(event, &span, level + 1)?),
            }
        }
    }

    fn map(&mut self, level: usize) -> Result<Data, Unreadable> {
        let mut entries = Vec::<Entry>::new();
        // The places of keys, where there are too many to look through.
        let mut places = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd | Event::StreamEnd) {
                return Ok(Data::Map(entries));
            }
            let key = self.node(event, &span, level + 1)?;
            let (event, span) = self.next()?;
            let mut node = self.node(event, &span, level + 1)?;
            let (place, key) = (key.place, key_text(key.data));
            let twin = if entries.len() < FEW {
                entries.iter().find(|entry| entry.key == key)
            } else {
                if places.is_empty() {
                    places = entries.iter().enumerate().map(|(at, entry)| (entry.key.clone(), at)).collect();
                }
                let at = *places.entry(key.clone()).or_insert(entries.len());
                entries.get(at)
            };
            if let Some(first) = twin.map(|twin| twin.place.line) {
                let why = format!("given twice, first in line {first}: keep one of them");
                node = Node { place, data: Data::Wrong(why) };
            }
            entries.push(Entry { key, place, node });
        }
    }

    /// What an alias stands for. Its parts stand where they were first written; the alias itself where it is used.
    fn alias(&mut self, anchor: usize, level: usize, place: Place) -> Result<Data, Unreadable> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Ok(Data::Wrong("an alias inside of what it stands for".into()));
        };
        let (nodes, levels) = size(node);
        let data = node.data.clone();
        self.spend(nodes, place)?;
        if level + levels > MOST_LEVELS {
            return Err(unreadable(place, "nested too deeply"));
        }
        Ok(data)
    }

    fn spend(&mut self, nodes: usize, place: Place) -> Result<(), Unreadable> {
        match self.left.checked_sub(nodes) {
            Some(left) => self.left = left,
            None => return Err(unreadable(place, "too many values: split the file, or use fewer aliases")),
        }
        Ok(())
    }
}

/// How many nodes a node is, and how many levels.
fn size(node: &Node) -> (usize, usize) {
    let children: Box<dyn Iterator<Item = &Node>> = match &node.data {
        Data::List(nodes) => Box::new(nodes.iter()),
        Data::Map(entries) => Box::new(entries.iter().map(|entry| &entry.node)),
        _ => return (1, 1),
    };
    let (nodes, levels) =
        children.map(size).fold((0, 0), |(n, l), (nodes, levels)| (n + nodes, l.max(levels)));
    (nodes + 1, levels + 1)
}

fn is_frame(event: &Event<'_>) -> bool {
    matches!(
        event,
        Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd
    )
}

fn key_text(key: Data) -> String {
    match key {
        Data::Scalar(Value::String(text)) => text,
        Data::Scalar(value) => value.to_string(),
        _ => "?".to_owned(),
    }
}

/// A scalar by YAML 1.2's core schema (section 10.3.2): `no`, `on` and `0o7` are text here as in JSON.
fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Data {
    let plain = match tag {
        None => style == ScalarStyle::Plain,
        Some(tag) if tag.is_yaml_core_schema_tag("str") => false,
        Some(tag) => return Data::Wrong(format!("the tag {tag} is not supported: leave it out")),
    };
    let value = match &*text {
        _ if !plain => Value::String(text.into_owned()),
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(&text).map_or_else(|| Value::String(text.into_owned()), Value::Number),
    };
    Data::Scalar(value)
}

fn number(text: &str) -> Option<Number> {
    // Rust reads `inf` and `nan` as numbers, YAML reads them as text.
    let first = text.trim_start_matches(['-', '+', '.']).bytes().next()?;
    if !first.is_ascii_digit() {
        return None;
    }
    let whole = text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from));
    whole.ok().or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64))
}

fn place(span: &Span) -> Place {
    marker(&span.start)
}

fn marker(marker: &serde_saphyr::granit_parser::Marker) -> Place {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place { line: number(marker.line()), column: number(marker.col()).saturating_add(1) }
}

fn unreadable(place: Place, reason: &str) -> Unreadable {
    Unreadable { line: place.line, column: place.column, reason: reason.to_owned() }
}
