//! Of which layers an image will be made, as far as that is known before anything is. Makes nothing.

use serde::Serialize;

use crate::base::ids::TaskId;
use crate::engine::image_key::epoch;
use crate::engine::image_layer::{add_directories, holding};
use crate::engine::image_pack::Packer;
use crate::engine::image_task::{Trouble, recipe_of, said_of, split};
use crate::engine::prepare::{Dependency, Prepared};
use crate::engine::session::Session;
use crate::image::access::Below;
use crate::manifest::recipe::{Base, ImageRecipe, LayerSource};

/// One layer of the plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedRow {
    /// The platform.
    pub platform: String,
    /// What it is of: `base …`, or as the history of the image says it.
    pub what: String,
    /// Files, links and directories; absent where that is known only once a command has run, and of a base.
    pub entries: Option<usize>,
    /// Bytes of its files before they are packed.
    pub bytes: Option<u64>,
}

/// The layers of an image, lowest first, one platform after the other.
///
/// Cost: that of the recipes; the lists of packages are read where a layer has a budget.
pub fn planned(
    session: &Session<'_>,
    task: TaskId,
    recipe: &ImageRecipe,
    prepared: &Prepared,
    dependencies: &[Dependency],
) -> Result<Vec<PlannedRow>, Trouble> {
    let epoch = epoch(session, recipe)?;
    let packer = Packer::new(session, prepared, recipe.compression.of_layers());
    let mut rows = Vec::new();
    for one in &recipe.platforms {
        let platform = one.platform.to_string();
        let base = match &one.base.value {
            Base::Scratch => None,
            Base::Registry(name) => Some(name.clone()),
            Base::Files(path) => Some(format!("//{path}")),
            Base::Task(_) => Some("the image of a task".to_owned()),
        };
        rows.extend(base.map(|base| PlannedRow {
            platform: platform.clone(),
            what: format!("base: {base}"),
            entries: None,
            bytes: None,
        }));
        for layer in &one.layers {
            let what = said_of(layer);
            if matches!(layer.source, LayerSource::Step { .. }) {
                rows.push(PlannedRow { platform: platform.clone(), what, entries: None, bytes: None });
                continue;
            }
            let mut held = holding(session, task, layer, prepared, dependencies)?;
            add_directories(&mut held, layer, &Below::default());
            let parts = split(layer, recipe_of(&held, epoch)?, &packer)?;
            let several = parts.len() > 1;
            for (number, part) in parts.iter().enumerate() {
                let what = if several { format!("{what} ({} of {})", number + 1, parts.len()) } else { what.clone() };
                rows.push(PlannedRow {
                    platform: platform.clone(),
                    what,
                    entries: Some(part.members().len()),
                    bytes: Some(part.bytes()),
                });
            }
        }
    }
    Ok(rows)
}
