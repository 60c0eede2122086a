//! The configuration file: YAML, or JSON, with every kind of resource under its plural.
//!
//! Each object is validated by itself. One that is wrong is rejected, with the line and column of what is wrong with
//! it, and the others live.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::Check;
use crate::doubt::doubts;
use crate::resource::{Invalid, Key, Kind, Resource, Spec, read};
use crate::scalar::{Name, socket_address, socket_address_schema};
use crate::tree::{Data, Entry, Node, Place};
use crate::wording::{UNKNOWN_FIELD, suggest};

/// Top-level keys of the design that this version does not have.
const NOT_YET: [&str; 2] = ["policies", "trust"];
/// What is said of a file that is an object of Kubernetes.
const OF_A_CLUSTER: &str = "unknown field `apiVersion`: an object of Kubernetes goes in by its `spec`, such as `rules`: write \
                            `httpRoutes: [{ name, listeners, hostnames, rules }]`";

/// A configuration file, read and validated.
#[derive(Debug, Clone, Default)]
pub struct File {
    /// Where the admin interface listens. Port 0 lets the system choose.
    pub admin: Option<SocketAddr>,
    /// The files of the identity that this proxy has in the mesh.
    pub identity: Option<IdentityFiles>,
    /// Every object that is right, in the order of the file.
    pub resources: Vec<Resource>,
    /// What is wrong, in the order of the file.
    pub rejected: Vec<Rejected>,
    /// What is legal and most likely not meant, such as a reference to a backend that is not there.
    pub warnings: Vec<Rejected>,
}

impl File {
    /// Whether objects may be hidden in what is rejected: under a key that nobody knows, or without a name.
    pub(crate) fn hides_objects(&self) -> bool {
        let of_no_object = |rejected: &Rejected| {
            let top = rejected.invalid.field.split('.').next().unwrap_or_default();
            ["admin", "identity"].contains(&top) || NOT_YET.contains(&top)
        };
        self.rejected.iter().any(|rejected| rejected.key.is_none() && !of_no_object(rejected))
    }
}

/// The files of an identity in the mesh, PEM. Relative paths are taken from the configuration file's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentityFiles {
    /// The certificate chain, leaf first. Its SPIFFE ID is the identity.
    #[schemars(with = "String")]
    pub chain: PathBuf,
    /// The private key.
    #[schemars(with = "String")]
    pub key: PathBuf,
    /// The certificates of the authorities that vouch for the others in the mesh.
    #[schemars(with = "String")]
    pub trust: PathBuf,
}

impl Check for IdentityFiles {
    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// The file's `admin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Admin {
    /// Where the admin interface listens: `127.0.0.1:15000`. Port 0 lets the system choose.
    #[serde(deserialize_with = "socket_address")]
    #[schemars(schema_with = "socket_address_schema")]
    address: SocketAddr,
}

impl Check for Admin {
    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// Something in the file that is wrong, or most likely not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The object's kind and name, where it has them.
    pub key: Option<Key>,
    /// The object, for people: ``httpRoutes `shop` ``.
    pub object: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
    /// The field, by its full path in the file (`httpRoutes[0].rules[0].timeouts.request`), and what is wrong with it.
    pub invalid: Invalid,
}

/// `LINE:COL: FIELD: what is wrong`.
impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.invalid)
    }
}

/// Why a file cannot be read at all. Written `LINE:COL: what is wrong`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {reason}")]
pub struct Unreadable {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
    /// What is wrong.
    pub reason: String,
}

/// Reads and validates a file's text.
///
/// # Errors
/// Where it is not YAML, or not an object at its top. Whatever else is wrong is in [`File::rejected`].
pub fn parse(text: &str) -> Result<File, Unreadable> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Node { place: Place { line, column }, data } = Node::parse(text)?;
    let Data::Map(entries) = data else {
        let reason = "a configuration is an object with keys such as `listeners`".to_owned();
        return Err(Unreadable { line, column, reason });
    };
    let mut reader = Reader { text, tree: OnceCell::new(), file: File::default(), seen: HashMap::new() };
    for entry in entries {
        reader.entry(entry);
    }
    reader.listeners_apart();
    reader.doubts();
    let mut file = reader.file;
    file.rejected.sort_by_key(|rejected| (rejected.line, rejected.column));
    file.warnings.sort_by_key(|warning| (warning.line, warning.column));
    Ok(file)
}

struct Reader<'a> {
    text: &'a str,
    /// The whole file once more, to find where something is that is wrong: what is right was read out of the first.
    tree: OnceCell<Option<Node>>,
    file: File,
    /// Every object with a name so far, with its path in the file and its line.
    seen: HashMap<Key, (String, u32)>,
}

impl Reader<'_> {
    fn entry(&mut self, entry: Entry) {
        let Entry { ref key, place, node } = entry;
        let key = key.as_str();
        if let Data::Wrong(why) = &node.data {
            return self.reject(None, key, Invalid::new(key.to_owned(), why.clone()));
        }
        match (key, Kind::ALL.into_iter().find(|kind| kind.plural() == key)) {
            (_, Some(kind)) => self.list(kind, node),
            ("admin", _) => match object::<Admin>(node) {
                Ok(admin) => self.file.admin = Some(admin.address),
                Err(invalid) => self.reject(None, key, below(key, invalid)),
            },
            ("identity", _) => match object::<IdentityFiles>(node) {
                Ok(files) => self.file.identity = Some(files),
                Err(invalid) => self.reject(None, key, below(key, invalid)),
            },
            _ => {
                let reason = if NOT_YET.contains(&key) {
                    "not supported by this version".to_owned()
                } else if key == "apiVersion" {
                    OF_A_CLUSTER.to_owned()
                } else {
                    let known: Vec<&str> =
                        ["admin", "identity"].into_iter().chain(Kind::ALL.map(Kind::plural)).collect();
                    format!("{UNKNOWN_FIELD} `{key}`: {}", suggest(key, &known))
                };
                self.reject_at(place, None, key, Invalid::new(key.to_owned(), reason));
            }
        }
    }

    fn list(&mut self, kind: Kind, node: Node) {
        match node.data {
            Data::Scalar(Value::Null) => {}
            Data::List(nodes) => {
                for (index, node) in nodes.into_iter().enumerate() {
                    self.object(kind, &format!("{}[{index}]", kind.plural()), node);
                }
            }
            _ => {
                let invalid =
                    Invalid::new(kind.plural(), "expected a list: begin each object with `- name: …`");
                self.reject(None, kind.plural(), invalid);
            }
        }
    }

    fn object(&mut self, kind: Kind, path: &str, mut node: Node) {
        let name = match node.get("name").map(|name| &name.data) {
            Some(Data::Scalar(Value::String(name))) => {
                name.parse::<Name>().map_err(|refused| refused.to_string())
            }
            Some(Data::Scalar(Value::Null)) | None => Err("missing: every object needs a name".to_owned()),
            Some(_) => Err("expected text: put it in quotes".to_owned()),
        };
        if !matches!(node.data, Data::Map(_)) {
            return self.reject(
                None,
                path,
                Invalid::new(path.to_owned(), "expected an object with a `name`"),
            );
        }
        let name = match name {
            Ok(name) => name,
            Err(reason) => return self.reject(None, path, Invalid::new(format!("{path}.name"), reason)),
        };
        let object = format!("{} `{name}`", kind.plural());
        let key = Key { kind, name };
        if let Some((_, line)) = self.seen.get(&key) {
            let reason =
                format!("`{}` is the name of another, in line {line}: choose a different one", key.name);
            return self.reject(Some(key), &object, Invalid::new(format!("{path}.name"), reason));
        }
        self.seen.insert(key.clone(), (path.to_owned(), node.place.line));
        let wrong = node.wrong();
        if let Data::Map(fields) = &mut node.data {
            fields.retain(|field| field.key != "name");
        }
        match wrong.map_or_else(|| Resource::of(kind, key.name.clone(), node), Err) {
            Ok(resource) => self.file.resources.push(resource),
            Err(invalid) => self.reject(Some(key), &object, below(path, invalid)),
        }
    }

    /// Two listeners cannot have the same address: the second is rejected.
    fn listeners_apart(&mut self) {
        let mut taken = HashMap::<SocketAddr, Name>::new();
        let resources = std::mem::take(&mut self.file.resources);
        for resource in resources {
            if let Spec::Listener(listener) = &resource.spec
                && listener.address.port() != 0
                && let Some(other) = taken.insert(listener.address, resource.name.clone())
            {
                let reason =
                    format!("{} is the address of listener `{other}`: choose another", listener.address);
                taken.insert(listener.address, other);
                self.reject_field(&resource.key(), "address", reason);
                continue;
            }
            self.file.resources.push(resource);
        }
    }

    fn reject_field(&mut self, key: &Key, field: &str, reason: String) {
        let rejected = self.finding(key, field, reason);
        self.file.rejected.push(rejected);
    }

    /// Notes what is legal and most likely not meant.
    fn doubts(&mut self) {
        let doubts = doubts(&self.file.resources, |key| self.seen.contains_key(key));
        self.file.warnings =
            doubts.into_iter().map(|doubt| self.finding(&doubt.key, &doubt.field, doubt.reason)).collect();
    }

    /// A finding at a field of an object that is known by its key.
    fn finding(&self, key: &Key, field: &str, reason: String) -> Rejected {
        let path = self.seen.get(key).map_or("", |(path, _)| path);
        let invalid = below(path, Invalid::new(field.to_owned(), reason));
        let Place { line, column } = self.find(&invalid.field, false);
        let object = format!("{} `{}`", key.kind.plural(), key.name);
        Rejected { key: Some(key.clone()), object, line, column, invalid }
    }

    /// Rejects what stands at the path of `invalid` in the file.
    fn reject(&mut self, key: Option<Key>, object: &str, invalid: Invalid) {
        let at_key = invalid.reason.starts_with(UNKNOWN_FIELD);
        self.reject_at(self.find(&invalid.field, at_key), key, object, invalid);
    }

    /// Where the field with this path stands.
    fn find(&self, path: &str, key: bool) -> Place {
        let tree = self.tree.get_or_init(|| Node::parse(self.text).ok());
        tree.as_ref().map(|tree| tree.find(path, key)).unwrap_or_default()
    }

    fn reject_at(&mut self, place: Place, key: Option<Key>, object: &str, invalid: Invalid) {
        let Place { line, column } = place;
        self.file.rejected.push(Rejected { key, object: object.to_owned(), line, column, invalid });
    }
}

fn object<T: serde::de::DeserializeOwned + Check>(node: Node) -> Result<T, Invalid> {
    node.wrong().map_or_else(|| read(node), Err)
}

/// What is wrong with a field of the object at `path`, by the field's path in the file.
fn below(path: &str, invalid: Invalid) -> Invalid {
    let field = match &*invalid.field {
        "" => path.to_owned(),
        "spec" if !invalid.reason.starts_with(UNKNOWN_FIELD) => path.to_owned(),
        field => format!("{path}.{field}"),
    };
    Invalid { field: Cow::Owned(field), reason: invalid.reason }
}
