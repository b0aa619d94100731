"""What ``mmengine.hub.get_model('dwnet::…')`` asks of a package."""


def register_all_modules(init_default_scope: bool = True) -> None:
    """Does nothing: the registries bring in their modules when a type is looked for."""
