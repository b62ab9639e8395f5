//! Builds an image without a server: `image-build DIR RECIPE [PROFILE …]`,
//! for work on the builder itself.

use provision::image::{BakeProfile, BuildRequest, Progress, build_image};
use provision::profile::Profiles;
use std::time::Instant;

struct Shown(Instant);

impl Progress for Shown {
    fn step(&mut self, what: &str) {
        eprintln!("{:7.1} == {what}", self.0.elapsed().as_secs_f64());
    }
    fn bytes(&mut self, _: u64, _: u64) {}
    fn log(&mut self, line: &str) {
        eprintln!("{:7.1}    {line}", self.0.elapsed().as_secs_f64());
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, recipe, wanted @ ..] = &arguments[..] else {
        anyhow::bail!("usage: image-build DIR RECIPE [PROFILE …]");
    };
    let known = Profiles::open("profiles");
    let mut profiles = Vec::new();
    for name in wanted {
        let p = known.get(&name.parse()?)?;
        profiles.push(BakeProfile { name: p.name, digest: p.digest, scripts: p.scripts });
    }
    let request = BuildRequest {
        name: recipe.parse()?,
        recipe: recipe.clone(),
        through: Vec::new(),
        mirror: None,
        components: None,
        packages: Vec::new(),
        profiles,
        images: format!("{dir}/images").into(),
        cache: format!("{dir}/cache").into(),
    };
    let start = Instant::now();
    let image = build_image(&request, &mut Shown(start))?;
    println!("{} {} in {:.0} s", image.name, image.digest, start.elapsed().as_secs_f64());
    for (name, baked) in &image.baked {
        println!("baked {name}: {:?}", baked.description.files["rootfs.idx"].sha256);
    }
    Ok(())
}
