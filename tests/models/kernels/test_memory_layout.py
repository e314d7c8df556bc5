import pytest
import torch

from avsnn.models.kernels.memory_layout import arrange, empty, memory_order, spike_order


@pytest.mark.parametrize("shape", [(3, 2, 5, 4, 7), (3, 2, 5, 7), (1, 1, 5, 1, 1), (3, 1, 1, 4, 4)])
def test_channels_lie_innermost_and_a_tensor_that_has_them_there_is_not_copied(shape):
    current = torch.randn(shape)
    order = memory_order(current, 2)
    arranged = arrange(current, order)
    assert torch.equal(arranged, current)
    assert arranged.movedim(2, -1).is_contiguous()
    assert arrange(arranged, order).data_ptr() == arranged.data_ptr()
    assert empty(current, shape, order).movedim(2, -1).is_contiguous()


def test_images_in_the_memory_format_of_convolutions_are_not_copied():
    frames = torch.randn(6, 5, 4, 7).contiguous(memory_format=torch.channels_last)
    current = frames.view(3, 2, 5, 4, 7)
    assert arrange(current, memory_order(current, 2)).data_ptr() == frames.data_ptr()


def test_the_strides_of_axes_of_size_1_do_not_matter():
    current = torch.randn(3 * 4 * 5).as_strided((3, 1, 5, 4, 1), (20, 7, 1, 5, 99))
    assert arrange(current, memory_order(current, 2)).data_ptr() == current.data_ptr()


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 1, 2), (0, 2, 3, 1)])
def test_a_current_without_channels_keeps_its_order(axes):
    current = torch.randn(3, 4, 5, 6).permute(axes)
    order = memory_order(current, None)
    assert arrange(current, order).data_ptr() == current.data_ptr()
    assert empty(current, current.shape, order).stride() == current.stride()
    spikes = empty(current, (2, *current.shape), spike_order(order, constant=True))
    assert spikes[0].stride() == current.stride()
    assert spikes.stride(0) == current.numel()


def test_the_first_axis_is_always_the_outermost():
    current = torch.randn(5, 3).t()
    assert arrange(current, memory_order(current, None)).is_contiguous()
    assert arrange(torch.tensor(1.0), memory_order(torch.tensor(1.0), None)).dim() == 0
