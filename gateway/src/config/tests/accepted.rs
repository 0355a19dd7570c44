use super::*;
#[test]
fn shipped() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    for path in ["quickstart.yaml", "plant-based-pizza"] {
        let loaded = load(&[root.join(path)], &Environment::default()).unwrap_or_else(|r| panic!("{r}"));
        println!("{loaded:#?}");
    }
}
