//! An image of the whole file system is restored after the node ran on: every inode is the old one.

use std::path::PathBuf;

use super::{Fault, Field, Injected, READY_LIMIT, old_copy};
use crate::ring::Ending;

/// The newest image while the old one replaces it.
#[derive(Debug, Default)]
pub(super) struct OldImage {
    newest: Option<(PathBuf, PathBuf)>,
}

impl Fault for OldImage {
    fn inject(&mut self, field: &mut Field<'_>) -> anyhow::Result<Injected> {
        let node = field.node;
        let old = field.ring.dir.join(format!("aside/old{node}.img"));
        let newest = field.ring.dir.join(format!("aside/newest{node}.img"));
        if field.ring.node(node)?.disk.is_none() {
            return Ok(Injected::NotPossible(
                "no file system of its own".to_owned(),
            ));
        }
        field.ring.end(node, Ending::Stop)?;
        if let Some(disk) = &mut field.ring.node_mut(node)?.disk {
            disk.unmount()?;
            disk.save(&old)?;
            disk.mount()?;
        }
        let missing = old_copy::go_on(field)?;
        if let Some(disk) = &mut field.ring.node_mut(node)?.disk {
            disk.unmount()?;
            disk.swap(&old, &newest)?;
            self.newest = Some((newest, old));
            disk.mount()?;
        }
        field.ring.start(node)?;
        Ok(old_copy::bite(node, "an old image of the disk", missing))
    }

    fn heal(&mut self, field: &mut Field<'_>) -> anyhow::Result<()> {
        let node = field.node;
        field.ring.end(node, Ending::Kill)?;
        if let Some(disk) = &mut field.ring.node_mut(node)?.disk
            && let Some((newest, old)) = self.newest.take()
        {
            disk.unmount()?;
            disk.swap(&newest, &old)?;
            std::fs::remove_file(old)?;
            disk.mount()?;
        }
        field.ring.start(node)?;
        field.ring.wait_ready(&[node], READY_LIMIT);
        Ok(())
    }
}
