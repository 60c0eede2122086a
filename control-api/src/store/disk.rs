//! The database file: its tables, and what stands in them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_config::{Key, Kind, Name, Resource, SpiffeId};
use redb::{Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::{Bindings, Objects, OpenError, WriteError};
use crate::world::{Object, World};

/// Objects: `HTTPRoute/shop` to the JSON of a [`Row`].
const RESOURCES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("resources");
/// Numbers: the store's `revision`.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Texts: the store's `id`, drawn at random when it is made.
const TEXTS: TableDefinition<'_, &str, &str> = TableDefinition::new("texts");
/// The identities that were signed for nodes: the node's name and the SPIFFE ID.
const BINDINGS: TableDefinition<'_, (&str, &str), ()> = TableDefinition::new("bindings");

/// An object as it is kept.
#[derive(Serialize, Deserialize)]
struct Row<S> {
    revision: u64,
    spec: S,
}

/// The file. After an error that it met while writing, the database does nothing more until it is opened again.
pub(super) struct Disk {
    path: PathBuf,
    /// `None` after an error, until it could be opened again.
    database: Option<Database>,
}

impl Disk {
    /// Opens or makes the file, and reads everything.
    pub(super) fn open(path: &Path) -> Result<(Self, World), OpenError> {
        let (database, world) = open(path)?;
        Ok((Self { path: path.into(), database: Some(database) }, world))
    }

    /// Opens it again after an error, and answers what stands in it: a write that failed may be there all the same.
    /// `None` if there is no need, or it is no use yet, as while the disk is full.
    pub(super) fn recover(&mut self) -> Option<World> {
        if self.database.is_some() {
            return None;
        }
        match open(&self.path) {
            Ok((database, world)) => {
                tracing::info!("the store is open again");
                self.database = Some(database);
                Some(world)
            }
            Err(reason) => {
                tracing::error!("the store cannot be opened again: {reason}");
                None
            }
        }
    }

    /// Writes what changed, as one transaction that is on disk when this returns.
    pub(super) fn save(&mut self, draft: &Draft) -> Result<(), WriteError> {
        let Some(database) = &self.database else {
            return Err(WriteError::Disk("it is not open since an error; see the log".into()));
        };
        save(database, draft).map_err(|reason| {
            tracing::error!(%reason, "the store cannot be written");
            self.database = None;
            WriteError::Disk(reason.to_string())
        })
    }
}

/// Opens or makes the file, and reads everything.
fn open(path: &Path) -> Result<(Database, World), OpenError> {
    let unusable = |reason: String| OpenError::Unusable { path: path.into(), reason };
    let file = open_file(path).map_err(|reason| unusable(reason.to_string()))?;
    let database = match Database::builder().create_file(file) {
        Ok(database) => database,
        Err(DatabaseError::DatabaseAlreadyOpen) => return Err(OpenError::InUse(path.into())),
        Err(reason) => return Err(unusable(reason.to_string())),
    };
    let id = prepare(&database).map_err(|reason| unusable(reason.to_string()))?;
    let world = read(&database, id.into()).map_err(|reason| unusable(reason.to_string()))?;
    Ok((database, world))
}

fn save(database: &Database, draft: &Draft) -> Result<(), Box<dyn std::error::Error>> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut resources = transaction.open_table(RESOURCES)?;
        for key in &draft.changed {
            let name = key.to_string();
            if let Some(object) = draft.objects.get(key) {
                let row = Row { revision: object.revision, spec: &object.spec };
                resources.insert(name.as_str(), serde_json::to_vec(&row)?.as_slice())?;
            } else {
                resources.remove(name.as_str())?;
            }
        }
        transaction.open_table(NUMBERS)?.insert("revision", draft.revision)?;
        let mut bindings = transaction.open_table(BINDINGS)?;
        for (node, id) in &draft.bound {
            bindings.insert((node.as_str(), id.as_str()), ())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Makes the tables and the store's id where they are not there yet. Answers the id.
fn prepare(database: &Database) -> Result<String, Box<dyn std::error::Error>> {
    let transaction = database.begin_write()?;
    let id = {
        transaction.open_table(RESOURCES)?;
        transaction.open_table(NUMBERS)?;
        transaction.open_table(BINDINGS)?;
        let mut texts = transaction.open_table(TEXTS)?;
        let known = texts.get("id")?.map(|id| id.value().to_owned());
        if let Some(id) = known {
            id
        } else {
            let id = crate::data::random_id()?;
            texts.insert("id", id.as_str())?;
            id
        }
    };
    transaction.commit()?;
    Ok(id)
}

fn read(database: &Database, id: Arc<str>) -> Result<World, Box<dyn std::error::Error>> {
    let transaction = database.begin_read()?;
    let revision = transaction.open_table(NUMBERS)?.get("revision")?.map_or(0, |revision| revision.value());
    let mut objects = Objects::new();
    for row in transaction.open_table(RESOURCES)?.iter()? {
        let (key, value) = row?;
        match parse(key.value(), value.value()) {
            Ok((key, object)) => {
                objects.insert(key, Arc::new(object));
            }
            // Kept on disk: an older or newer version of the program may know better.
            Err(reason) => tracing::error!("{} in the store is left out: {reason}", key.value()),
        }
    }
    let mut bindings = Bindings::new();
    for row in transaction.open_table(BINDINGS)?.iter()? {
        let (key, ()) = row.map(|(key, _)| (key, ()))?;
        let (node, id) = key.value();
        bindings.insert((node.parse::<Name>()?, id.parse::<SpiffeId>()?));
    }
    Ok(World::new(id, revision, objects, bindings))
}

/// The file, made readable by its owner alone: it says who may call whom.
fn open_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn parse(key: &str, value: &[u8]) -> Result<(Key, Object), Box<dyn std::error::Error>> {
    let (kind, name) = key.split_once('/').ok_or("its key is not KIND/NAME")?;
    let kind = Kind::find(kind).ok_or("this version does not know its kind")?;
    let row: Row<serde_json::Value> = serde_json::from_slice(value)?;
    let resource = Resource::parse(kind, name, row.spec)?;
    let key = resource.key();
    Ok((key, Object::new(row.revision, Arc::new(resource))?))
}
