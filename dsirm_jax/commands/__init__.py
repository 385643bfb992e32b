"""The commands of `dsirm`, one file each."""

from dsirm_jax.commands import (
    ablate,
    check,
    compare,
    compile,
    export,
    import_model,
    predict_sids,
    score,
    serve,
    stage,
    update_bundle,
    verify_bundle,
)
from dsirm_jax.stages import STAGES, assign

COMMANDS = {
    command.name: command
    for command in (
        check.COMMAND,
        *map(stage.command_of, STAGES),
        stage.RUN,
        stage.command_of(assign.STAGE),
        predict_sids.COMMAND,
        score.COMMAND,
        ablate.COMMAND,
        compare.COMMAND,
        import_model.COMMAND,
        import_model.ALIAS,
        compile.COMMAND,
        export.COMMAND,
        verify_bundle.COMMAND,
        update_bundle.COMMAND,
        serve.COMMAND,
    )
}
"""By name, in the order in which help lists them."""
