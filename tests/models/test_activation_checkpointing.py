import torch

from avsnn.models.activation_checkpointing import recompute_blocks
from avsnn.models.spike_counter import spike_rates

from .networks import clips, each_method, small


@each_method
def test_blocks_that_are_computed_twice_give_the_same_gradients_and_statistics(method):
    results = []
    for again in (False, True):
        torch.manual_seed(5)
        model = small(method)
        if again:
            recompute_blocks(model)
        saved: list[torch.Tensor] = []

        def keep(tensor: torch.Tensor, saved: list[torch.Tensor] = saved) -> torch.Tensor:
            saved.append(tensor)
            return tensor

        with (
            spike_rates(model) as rates,
            torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
        ):
            torch.manual_seed(6)
            output = model(*clips(batch=2))
        with spike_rates(model) as second:
            output.logits.square().sum().backward()
        assert not second
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append((grads, dict(model.state_dict()), rates, sum(t.nbytes for t in saved)))
    (grads, state, rates, kept), (grads_again, state_again, rates_again, kept_again) = results
    assert grads.keys() == grads_again.keys()
    assert all(torch.equal(grads[n], grads_again[n]) for n in grads)
    assert all(torch.equal(state[n], state_again[n]) for n in state)
    assert rates == rates_again
    assert kept_again < 0.7 * kept
