"""Functions of BenCo, torch and fvcore that QMA-Net replaces, and what the replacements rely on.

BenCo's scripts run unmodified, but some functions that they call are wrapped or redirected.
:data:`CONTRACTS` lists each of them: when and why it is replaced, and the signature and call sites
that the replacement relies on. Entries marked "not replaced" describe what importing
:mod:`qma_net.benco` sets up for the scripts that ``benco init`` copies.
``tests/test_contracts.py`` checks every entry against the installed packages.

The launcher also changes these parts of its own process: ``sys.argv``; ``sys.stdout`` on the
first rank until the first epoch (:mod:`.console`); the handlers of SIGINT and SIGTERM during a
training run (:mod:`.stop_requests`); and, without torchrun, the environment variables that torchrun
would set (:mod:`.torchrun`).
"""

import functools
import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

BENCO = "IMDLBenCo.training_scripts"
MISC = f"{BENCO}.utils.misc"
TRAIN = f"{BENCO}.train"
TRAINER, TESTER = f"{BENCO}.trainer.trainer", f"{BENCO}.tester.tester"
DATASET = "IMDLBenCo.datasets.abstract_dataset"


@dataclass(frozen=True)
class Contract:
    """A function, method, class or constant of BenCo that this package replaces or relies on."""

    target: str  # module:attribute
    when: str
    purpose: str  # What the replacement does, and where it is defined.
    # Separated by spaces, in order; all of them for BenCo's functions, else the relevant ones.
    parameters: str
    calls: tuple[tuple[str, str], ...]  # Modules, and code in them that it relies on.

    def violations(self) -> list[str]:
        """Compare the contract with the installed packages; an empty list means it holds."""
        try:
            target = resolve_name(self.target)
        except (ImportError, AttributeError) as error:
            return [f"{self.target} does not exist ({error})"]
        violations = []
        if expected := self.parameters.split():
            actual = list(inspect.signature(target).parameters)
            is_benco = self.target.startswith("IMDLBenCo")
            if expected != [name for name in actual if is_benco or name in expected]:
                violations.append(f"{self.target} has the parameters {actual}, expected {expected}")
        violations += [
            f"{module} does not contain `{code}`"
            for module, code in self.calls
            if "".join(code.split()) not in "".join(_source(module).split())
        ]
        return violations


def _source(module: str) -> str:
    with suppress(ModuleNotFoundError):
        spec = find_spec(module)
        if spec and spec.origin:
            return Path(spec.origin).read_text(encoding="utf-8")
    return ""


# Each entry: the target with its parameters and when it is replaced, the purpose, and lines that
# each name a module and code that it contains.
_TABLE = f"""
argparse:ArgumentParser.error(self, message) [in every script]
  report invalid flags in one line, so that torchrun does not restart the run (flags.py)
  {TRAIN}: args, remaining_args = parser.parse_known_args()
  {TRAIN}: model_args = model_parser.parse_args(remaining_args)

torch:load(f, map_location, weights_only) [in every script; without CUDA or with --device cpu]
  load tensors and argparse.Namespace only, never other pickled objects (checkpoints.py); load \
      to the CPU (cuda_to_cpu.py)
  {BENCO}.test: torch.load(ckpt, map_location=args.device, weights_only=False)
  {MISC}: checkpoint = torch.load(args.resume, map_location='cpu')

{MISC}:save_on_master(args, kwargs) [in every script]
  write checkpoints atomically and report a full disk (checkpoints.py)
  {MISC}: save_on_master(to_save, checkpoint_path)

{MISC}:save_model(args, epoch, model, model_without_ddp, optimizer, loss_scaler) [in train]
  skip an epoch that is already saved and delete old checkpoints (training_hooks.py)
  {TRAIN}: if args.output_dir and (epoch % 25 == 0 or epoch + 1 == args.epochs):
  {TRAIN}: misc.save_model(args=args, model=model, model_without_ddp=
  {MISC}: output_dir / ('checkpoint-%s.pth' % epoch_name)

{MISC}:load_model(args, model_without_ddp, optimizer, loss_scaler) [in train]
  keep the parameter groups of an older run, and test an epoch that was saved but not logged \
      before training continues (training_hooks.py)
  {TRAIN}: optimizer = optim_factory.create_optimizer(args, model_without_ddp)
  timm.optim._optim_factory: no_weight_decay = getattr(model_or_params, 'no_weight_decay',
  {TRAIN}: misc.load_model(args=args, model_without_ddp=model_without_ddp, optimizer=
  {MISC}: args.start_epoch = checkpoint['epoch'] + 1

{MISC}:NativeScalerWithGradNormCount.load_state_dict(self, state_dict) [in every script]
  accept the empty AMP state of a checkpoint that was saved on a CPU (checkpoints.py)
  {MISC}: self._scaler.load_state_dict(state_dict)

{BENCO}.trainer:train_one_epoch(model, data_loader, optimizer, device, epoch, loss_scaler, \
      log_writer, log_per_epoch_count, args) [in train]
  seed every epoch, guard its steps and save a checkpoint (training_hooks.py)
  {TRAIN}: train_one_epoch(model, data_loader_train, optimizer, device, epoch, loss_scaler, \
      log_writer=log_writer, log_per_epoch_count=args.log_per_epoch_count, args=args)

{BENCO}.tester:test_one_epoch(model, data_loader, evaluator_list, device, epoch, name, \
      log_writer, print_freq, args, is_test) [in train]
  copy the checkpoint of the best epoch to best/ (training_hooks.py)
  {TRAIN}: test_one_epoch(model, data_loader=test_dataloader, evaluator_list=evaluator_list, \
      device=device, epoch=epoch, name=test_dataset_name,

{MISC}:NativeScalerWithGradNormCount.__call__(self, loss, optimizer, clip_grad, parameters, \
      create_graph, update_grad) [in train]
  skip steps with a non-finite loss or gradient; --clip_grad (nonfinite_steps.py)
  {TRAINER}: loss_scaler(predict_loss, optimizer, parameters=model.parameters(), \
      update_grad=(data_iter_step + 1) % accum_iter == 0)
  {MISC}: self._scaler = torch.cuda.amp.GradScaler()

{MISC}:get_grad_norm_(parameters, norm_type) [in train]
  launch a few kernels instead of one per parameter (training_hooks.py)
  {MISC}: norm = get_grad_norm_(parameters)

torch.optim:Optimizer.step(self, closure) \
      [in train, on the optimizer and only during a call of the loss scaler]
  delay the step until all ranks agree that it is finite (nonfinite_steps.py)
  {MISC}: self._scaler.step(optimizer)

{MISC}:MetricLogger(delimiter) [in train, during an epoch and during its tests]
  run checks between batches and average finite losses only (training_hooks.py)
  {TRAINER}: misc.MetricLogger(delimiter="  ")
  {TRAINER}: metric_logger.log_every(data_loader, print_freq,
  {TESTER}: metric_logger.log_every(data_loader, print_freq,
  {MISC}: self.meters = defaultdict(SmoothedValue)
  {MISC}: for obj in iterable: data_time.update(time.time() - end) yield obj

{MISC}:SmoothedValue.update(self, value, n) [in train, in a subclass during an epoch]
  leave non-finite values out of an epoch's average (training_hooks.py)
  {MISC}: self.deque.append(value / n)
  {MISC}: return self.total / self.count

{DATASET}:AbstractDataset._get_image(self, index) [in train, on every training set]
  replace an unreadable image by the next one (unreadable_images.py)
  {DATASET}: = self._get_image(index)
  IMDLBenCo.datasets.balanced_dataset: self.dataset_list = [

{DATASET}:AbstractDataset._init_dataset_path(self, path) \
      [when qma_net.benco is imported, in SynthDataset and NativeDataset]
  list images that are synthesized or cropped (benco/datasets.py)
  {DATASET}: self.tp_path, self.gt_path = self._init_dataset_path(path)

{MISC}:seed_torch(seed) [with --cudnn]
  turn cuDNN back on (scripts.py)
  {TRAIN}: misc.seed_torch(seed)
  {MISC}: torch.backends.cudnn.enabled = False

torch.utils.data:DataLoader.__init__(self, dataset, num_workers, worker_init_fn) \
      [in every script]
  limit OpenCV to one thread in every loader process (scripts.py)
  {TRAIN}: data_loader_train = torch.utils.data.DataLoader(
  {BENCO}.test: torch.utils.data.DataLoader(

torch.distributed:init_process_group(backend, init_method, world_size, rank, store) \
      [after a restart by torchrun; without CUDA or with --device cpu]
  give each restart its own part of the store (torchrun.py); use gloo (cuda_to_cpu.py)
  {MISC}: torch.distributed.init_process_group(backend=args.dist_backend, \
      init_method=args.dist_url, world_size=args.world_size, rank=args.rank)

torch.nn.parallel:DistributedDataParallel(module, device_ids, output_device) \
      [without CUDA or with --device cpu]
  ignore device_ids (cuda_to_cpu.py)
  {TRAIN}: torch.nn.parallel.DistributedDataParallel(model, device_ids=[args.gpu],

torch.nn:SyncBatchNorm.convert_sync_batchnorm(module, process_group) \
      [without CUDA or with --device cpu]
  return the model unchanged, since SyncBatchNorm rejects CPU tensors (cuda_to_cpu.py)
  {TRAIN}: torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)

torch.cuda:synchronize(device) [without CUDA or with --device cpu]
  do nothing (cuda_to_cpu.py)
  {TRAINER}: torch.cuda.synchronize()

torch.cuda:set_device(device) [without CUDA or with --device cpu]
  do nothing (cuda_to_cpu.py)
  {MISC}: torch.cuda.set_device(args.gpu)

torch:Tensor.cuda [without CUDA or with --device cpu, by a torch.overrides.TorchFunctionMode]
  return the tensor; the same mode turns device='cuda' into 'cpu' (cuda_to_cpu.py)
  {MISC}: torch.tensor(x).cuda()
  {MISC}: torch.tensor([self.count, self.total], dtype=torch.float64, device='cuda')

huggingface_hub.constants:HF_HUB_OFFLINE \
      [in train, after weights from the Hub have been downloaded]
  load them from the cache in every process, without further requests (pretrained.py)
  huggingface_hub.constants: return HF_HUB_OFFLINE

torch.serialization:add_safe_globals(safe_globals) [called when qma_net.benco is imported]
  let --resume load the argparse.Namespace in a checkpoint of BenCo (benco/scripts.py)
  {MISC}: checkpoint = torch.load(args.resume, map_location='cpu')
  {MISC}: to_save = {{ 'model': model_without_ddp.state_dict(), 'optimizer': \
      optimizer.state_dict(), 'epoch': epoch, 'scaler': loss_scaler.state_dict(), 'args': args,

{MISC}:init_distributed_mode(args) \
      [not replaced; when a script created by benco init imports qma_net.benco]
  set the environment variables of torchrun for one process (benco/scripts.py)
  {MISC}: elif 'RANK' in os.environ and 'WORLD_SIZE' in os.environ:
  {TRAIN}: if global_rank == 0 and args.log_dir is not None:
  {BENCO}.test: model.module.load_state_dict(ckpt['model'])

{BENCO}.test_save_images:main(args, model_args) \
      [not replaced; when a script created by benco init imports qma_net.benco]
  make --checkpoint_path in sys.argv absolute (benco/scripts.py)
  {BENCO}.test_save_images: chkpt_dir = args.checkpoint_path
  {BENCO}.test_save_images: ckpt = os.path.join(args.checkpoint_path, chkpt_dir)

fvcore.nn.flop_count:_DEFAULT_SUPPORTED_OPS [when qma_net.benco is imported]
  count the operations of scaled_dot_product_attention (benco/model.py)
  fvcore.nn.flop_count: self.set_op_handle(**_DEFAULT_SUPPORTED_OPS)
  {BENCO}.test_complexity: FlopCountAnalysis(
"""


def _parse(entry: str) -> Contract:
    head, purpose, *lines = (line.strip() for line in entry.strip().splitlines())
    signature, _, when = head.rstrip("]").partition("[")
    target, _, parameters = signature.strip(" )").partition("(")
    calls = tuple((module, code) for module, _, code in (line.partition(": ") for line in lines))
    return Contract(target, when, purpose, parameters.replace(",", ""), calls)


CONTRACTS = {contract.target: contract for contract in map(_parse, _TABLE.split("\n\n"))}


def install(target: str, replacement: object) -> Any:
    """Replace a function or class that is listed in :data:`CONTRACTS`, and return the original.

    Raises:
        KeyError: If the target is not listed.
    """
    if target not in CONTRACTS:
        raise KeyError(target)
    module, _, attribute = target.partition(":")
    parent, _, name = attribute.rpartition(".")
    owner = resolve_name(f"{module}:{parent}")
    original = getattr(owner, name)
    setattr(owner, name, replacement)
    return original


def replaces(target: str) -> Callable[[Callable], Callable]:
    """Decorate a replacement for ``target`` that receives the original as its first argument.

    The replacement is installed immediately.
    """

    def decorate(function: Callable) -> Callable:
        original = resolve_name(target)

        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            return function(original, *args, **kwargs)

        install(target, replacement)
        return replacement

    return decorate
