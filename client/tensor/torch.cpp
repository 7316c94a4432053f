/* tensor.h over libtorch: the one C++ file, and the one that includes it. Called through tensor.h only; scopes are
 * thread-local, so any thread may call. Every function is noexcept behind a catch-all. */
#include "client/tensor/tensor.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/torch.h>

#include <dlfcn.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

/* Scopes keep their handles in a ring, so that moving and freeing one is O(1). */
struct cs_tensor {
    at::Tensor value;
    cs_tensor *previous;
    cs_tensor *next;
};

struct cs_scope {
    cs_scope *parent;
    cs_tensor *first;
    cs_status status;
    char error[CS_ERROR_TEXT_BYTES];
};

struct cs_generator {
    at::Generator value;
};

namespace
{

thread_local cs_scope *innermost = nullptr;
std::atomic<size_t> live_handles{0};

cs_scope *open_scope() noexcept
{
    if (innermost == nullptr) {
        /* A mistake in this program: nobody would ever free the handle. */
        std::fputs("consilium: a tensor was made outside of every scope\n", stderr);
        std::abort();
    }
    return innermost;
}

void note_failure(cs_status status, const char *sentence) noexcept
{
    cs_scope *scope = open_scope();
    if (scope->status != CS_OK)
        return;
    scope->status = status;
    std::snprintf(scope->error, sizeof scope->error, "%s", sentence);
}

void scope_link(cs_scope *scope, cs_tensor *tensor) noexcept
{
    tensor->previous = nullptr;
    tensor->next = scope->first;
    if (scope->first != nullptr)
        scope->first->previous = tensor;
    scope->first = tensor;
}

void scope_unlink(cs_scope *scope, cs_tensor *tensor) noexcept
{
    if (tensor->previous != nullptr)
        tensor->previous->next = tensor->next;
    else if (scope->first == tensor)
        scope->first = tensor->next;
    if (tensor->next != nullptr)
        tensor->next->previous = tensor->previous;
    tensor->previous = tensor->next = nullptr;
}

/* The first line is the sentence; what follows is a backtrace for C++ programmers. */
std::string first_line(const char *text)
{
    return std::string(text, std::strcspn(text, "\n"));
}

/* Runs `work`; whatever is thrown becomes a status and, through `fail`, a sentence. */
template <typename Work, typename Fail> cs_status guarded(Work work, Fail fail) noexcept
{
    try {
        work();
        return CS_OK;
    } catch (const c10::Error &error) {
        return fail(CS_INVALID, first_line(error.what_without_backtrace()).c_str());
    } catch (const std::bad_alloc &) {
        return fail(CS_EXHAUSTED, "out of memory for a tensor");
    } catch (const std::exception &error) {
        return fail(CS_INTERNAL, first_line(error.what()).c_str());
    } catch (...) {
        return fail(CS_INTERNAL, "libtorch threw something that is no exception");
    }
}

cs_status fail_effect(cs_status status, const char *sentence) noexcept
{
    return cs_fail(status, "%s", sentence);
}

cs_status fail_value(cs_status status, const char *sentence) noexcept
{
    note_failure(status, sentence);
    return status;
}

template <typename Work> cs_status effect(Work work) noexcept
{
    return guarded(work, fail_effect);
}

/* A new handle in the innermost scope for what `work` computes, or NULL with the failure noted there. */
template <typename Work> cs_tensor *value(Work work) noexcept
{
    cs_scope *scope = open_scope();
    cs_tensor *made = nullptr;
    cs_status status = guarded([&] { made = new cs_tensor{work(), nullptr, nullptr}; }, fail_value);
    if (status != CS_OK)
        return nullptr;
    live_handles.fetch_add(1, std::memory_order_relaxed);
    scope_link(scope, made);
    return made;
}

template <typename Work> cs_tensor *unary(const cs_tensor *a, Work work) noexcept
{
    return a == nullptr ? nullptr : value([&] { return work(a->value); });
}

template <typename Work> cs_tensor *binary(const cs_tensor *a, const cs_tensor *b, Work work) noexcept
{
    return a == nullptr || b == nullptr ? nullptr : value([&] { return work(a->value, b->value); });
}

/* The failure behind a NULL that came as an argument. */
cs_status fail_missing() noexcept
{
    if (innermost != nullptr && innermost->status != CS_OK)
        return cs_fail(innermost->status, "%s", innermost->error);
    return cs_fail(CS_INTERNAL, "a tensor is missing");
}

at::ScalarType torch_type(cs_dtype dtype)
{
    switch (dtype) {
    case CS_F64:
        return at::kDouble;
    case CS_F32:
        return at::kFloat;
    case CS_F16:
        return at::kHalf;
    case CS_BF16:
        return at::kBFloat16;
    case CS_I64:
        return at::kLong;
    case CS_I32:
        return at::kInt;
    case CS_I16:
        return at::kShort;
    case CS_I8:
        return at::kChar;
    case CS_U8:
        return at::kByte;
    case CS_BOOL:
        return at::kBool;
    }
    throw std::runtime_error("unknown dtype");
}

bool our_type(at::ScalarType type, cs_dtype *ret) noexcept
{
    static const struct {
        at::ScalarType torch;
        cs_dtype ours;
    } types[] = {{at::kDouble, CS_F64}, {at::kFloat, CS_F32}, {at::kHalf, CS_F16},  {at::kBFloat16, CS_BF16},
                 {at::kLong, CS_I64},   {at::kInt, CS_I32},   {at::kShort, CS_I16}, {at::kChar, CS_I8},
                 {at::kByte, CS_U8},    {at::kBool, CS_BOOL}};
    for (const auto &entry : types) {
        if (entry.torch == type) {
            *ret = entry.ours;
            return true;
        }
    }
    return false;
}

std::vector<int64_t> torch_shape(size_t rank, const uint64_t *shape)
{
    std::vector<int64_t> sizes;
    sizes.reserve(rank);
    for (size_t i = 0; i < rank; i++) {
        if (shape[i] > static_cast<uint64_t>(INT64_MAX))
            throw std::runtime_error("a dimension of a tensor is larger than memory");
        sizes.push_back(static_cast<int64_t>(shape[i]));
    }
    return sizes;
}

size_t byte_size(const at::Tensor &tensor)
{
    return static_cast<size_t>(tensor.numel()) * static_cast<size_t>(tensor.element_size());
}

/* OpenBLAS counts the machine's processors and knows nothing of libtorch's setting; the split of a product over
 * threads is part of its result. */
void set_blas_threads(int threads)
{
    auto set = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"));
    if (set != nullptr)
        set(threads);
}

} // namespace

cs_scope *cs_scope_open(void) noexcept
{
    cs_scope *scope = static_cast<cs_scope *>(cs_alloc(sizeof *scope));
    scope->parent = innermost;
    scope->status = CS_OK;
    if (innermost != nullptr && innermost->status != CS_OK) {
        scope->status = innermost->status;
        std::memcpy(scope->error, innermost->error, sizeof scope->error);
    }
    innermost = scope;
    return scope;
}

void cs_scope_close(cs_scope **owner) noexcept
{
    cs_scope *scope = *owner;
    while (scope->first != nullptr) {
        cs_tensor *tensor = scope->first;
        scope_unlink(scope, tensor);
        cs_tensor_free(tensor);
    }
    innermost = scope->parent;
    if (innermost != nullptr && scope->status != CS_OK)
        note_failure(scope->status, scope->error);
    cs_free(scope);
    *owner = nullptr;
}

cs_tensor *cs_scope_return(cs_scope *scope, cs_tensor *tensor) noexcept
{
    if (tensor == nullptr || scope->parent == nullptr)
        return tensor;
    scope_unlink(scope, tensor);
    scope_link(scope->parent, tensor);
    return tensor;
}

cs_status cs_scope_status(const cs_scope *scope) noexcept
{
    return scope->status == CS_OK ? CS_OK : cs_fail(scope->status, "%s", scope->error);
}

cs_tensor *cs_tensor_fail(cs_status status, const char *format, ...) noexcept
{
    char sentence[CS_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    note_failure(status, sentence);
    return nullptr;
}

cs_tensor *cs_tensor_keep(const cs_tensor *tensor) noexcept
{
    if (tensor == nullptr)
        return nullptr;
    cs_tensor *kept = nullptr;
    if (guarded([&] { kept = new cs_tensor{tensor->value, nullptr, nullptr}; }, fail_value) == CS_OK)
        live_handles.fetch_add(1, std::memory_order_relaxed);
    return kept;
}

void cs_tensor_free(cs_tensor *tensor) noexcept
{
    if (tensor == nullptr)
        return;
    live_handles.fetch_sub(1, std::memory_order_relaxed);
    delete tensor;
}

size_t cs_tensor_live_count(void) noexcept
{
    return live_handles.load(std::memory_order_relaxed);
}

cs_tensor *cs_tensor_zeros(cs_dtype dtype, size_t rank, const uint64_t *shape) noexcept
{
    return value([&] { return at::zeros(torch_shape(rank, shape), torch_type(dtype)); });
}

cs_tensor *cs_tensor_full(cs_dtype dtype, size_t rank, const uint64_t *shape, double number) noexcept
{
    return value([&] { return at::full(torch_shape(rank, shape), number, torch_type(dtype)); });
}

cs_tensor *cs_tensor_from(cs_dtype dtype, size_t rank, const uint64_t *shape, const void *data,
                          size_t size_bytes) noexcept
{
    return value([&] {
        at::Tensor tensor = at::empty(torch_shape(rank, shape), torch_type(dtype));
        if (byte_size(tensor) != size_bytes)
            throw std::runtime_error("a tensor of " + std::to_string(byte_size(tensor)) + " bytes was given " +
                                     std::to_string(size_bytes));
        if (size_bytes > 0)
            std::memcpy(tensor.data_ptr(), data, size_bytes);
        return tensor;
    });
}

cs_tensor *cs_tensor_clone(const cs_tensor *tensor) noexcept
{
    return unary(tensor, [](const at::Tensor &t) { return t.clone(); });
}

cs_tensor *cs_tensor_to(const cs_tensor *tensor, cs_dtype dtype) noexcept
{
    return unary(tensor, [&](const at::Tensor &t) { return t.to(torch_type(dtype)); });
}

cs_tensor *cs_tensor_uniform(cs_generator *generator, cs_dtype dtype, size_t rank, const uint64_t *shape, double low,
                             double high) noexcept
{
    return value([&] {
        at::NoGradGuard no_grad;
        return at::empty(torch_shape(rank, shape), torch_type(dtype)).uniform_(low, high, generator->value);
    });
}

cs_tensor *cs_tensor_randperm(cs_generator *generator, uint64_t n) noexcept
{
    return value([&] { return at::randperm(torch_shape(1, &n)[0], generator->value, at::TensorOptions(at::kLong)); });
}

size_t cs_tensor_rank(const cs_tensor *tensor) noexcept
{
    return static_cast<size_t>(tensor->value.dim());
}

uint64_t cs_tensor_size(const cs_tensor *tensor, size_t dimension) noexcept
{
    return dimension < cs_tensor_rank(tensor) ? static_cast<uint64_t>(tensor->value.sizes()[dimension]) : 1;
}

uint64_t cs_tensor_elements(const cs_tensor *tensor) noexcept
{
    return static_cast<uint64_t>(tensor->value.numel());
}

cs_status cs_tensor_dtype(const cs_tensor *tensor, cs_dtype *ret) noexcept
{
    if (!our_type(tensor->value.scalar_type(), ret))
        return cs_fail(CS_INVALID, "a tensor of type %s has no place in a file",
                       c10::toString(tensor->value.scalar_type()));
    return CS_OK;
}

cs_status cs_tensor_copy_out(const cs_tensor *tensor, void *data, size_t size_bytes) noexcept
{
    if (tensor == nullptr)
        return fail_missing();
    return effect([&] {
        at::Tensor plain = tensor->value.detach().contiguous();
        if (byte_size(plain) != size_bytes)
            throw std::runtime_error("a tensor of " + std::to_string(byte_size(plain)) + " bytes was read as " +
                                     std::to_string(size_bytes));
        if (size_bytes > 0)
            std::memcpy(data, plain.data_ptr(), size_bytes);
    });
}

cs_status cs_tensor_value(const cs_tensor *tensor, double *ret) noexcept
{
    if (tensor == nullptr)
        return fail_missing();
    return effect([&] { *ret = tensor->value.item().toDouble(); });
}

cs_tensor *cs_reshape(const cs_tensor *tensor, size_t rank, const uint64_t *shape) noexcept
{
    return unary(tensor, [&](const at::Tensor &t) { return t.reshape(torch_shape(rank, shape)); });
}

cs_tensor *cs_transpose(const cs_tensor *matrix) noexcept
{
    return unary(matrix, [](const at::Tensor &t) { return t.t(); });
}

cs_tensor *cs_narrow(const cs_tensor *tensor, size_t dimension, uint64_t start, uint64_t length) noexcept
{
    return unary(tensor, [&](const at::Tensor &t) {
        const uint64_t range[] = {dimension, start, length};
        const std::vector<int64_t> checked = torch_shape(3, range);
        return t.narrow(checked[0], checked[1], checked[2]);
    });
}

cs_tensor *cs_rows(const cs_tensor *tensor, const cs_tensor *index) noexcept
{
    return binary(tensor, index, [](const at::Tensor &t, const at::Tensor &i) { return t.index_select(0, i); });
}

cs_tensor *cs_concatenate(cs_tensor *const *tensors, size_t count) noexcept
{
    for (size_t i = 0; i < count; i++) {
        if (tensors[i] == nullptr)
            return nullptr;
    }
    return value([&] {
        std::vector<at::Tensor> parts;
        for (size_t i = 0; i < count; i++)
            parts.push_back(tensors[i]->value);
        return at::cat(parts, 0);
    });
}

cs_tensor *cs_add(const cs_tensor *a, const cs_tensor *b) noexcept
{
    return binary(a, b, [](const at::Tensor &x, const at::Tensor &y) { return x + y; });
}

cs_tensor *cs_subtract(const cs_tensor *a, const cs_tensor *b) noexcept
{
    return binary(a, b, [](const at::Tensor &x, const at::Tensor &y) { return x - y; });
}

cs_tensor *cs_multiply(const cs_tensor *a, const cs_tensor *b) noexcept
{
    return binary(a, b, [](const at::Tensor &x, const at::Tensor &y) { return x * y; });
}

cs_tensor *cs_divide(const cs_tensor *a, const cs_tensor *b) noexcept
{
    return binary(a, b, [](const at::Tensor &x, const at::Tensor &y) { return x / y; });
}

cs_tensor *cs_scale(const cs_tensor *tensor, double factor) noexcept
{
    return unary(tensor, [&](const at::Tensor &t) { return t * factor; });
}

cs_tensor *cs_add_scaled(const cs_tensor *a, const cs_tensor *b, double factor) noexcept
{
    return binary(a, b, [&](const at::Tensor &x, const at::Tensor &y) { return x.add(y, factor); });
}

cs_tensor *cs_square_root(const cs_tensor *tensor) noexcept
{
    return unary(tensor, [](const at::Tensor &t) { return t.sqrt(); });
}

cs_tensor *cs_relu(const cs_tensor *tensor) noexcept
{
    return unary(tensor, [](const at::Tensor &t) { return t.relu(); });
}

cs_tensor *cs_gelu(const cs_tensor *tensor) noexcept
{
    return unary(tensor, [](const at::Tensor &t) { return at::gelu(t); });
}

cs_tensor *cs_tanh(const cs_tensor *tensor) noexcept
{
    return unary(tensor, [](const at::Tensor &t) { return t.tanh(); });
}

cs_tensor *cs_softmax(const cs_tensor *tensor) noexcept
{
    return unary(tensor, [](const at::Tensor &t) { return t.softmax(-1); });
}

cs_tensor *cs_dropout(const cs_tensor *tensor, double p, cs_generator *generator) noexcept
{
    return unary(tensor, [&](const at::Tensor &t) {
        if (generator == nullptr)
            throw std::runtime_error("dropout was given no generator");
        at::Tensor kept;
        {
            at::NoGradGuard no_grad;
            kept = at::empty_like(t).bernoulli_(1 - p, generator->value).div_(1 - p);
        }
        return t * kept;
    });
}

cs_tensor *cs_sigmoid(const cs_tensor *tensor) noexcept
{
    return unary(tensor, [](const at::Tensor &t) { return t.sigmoid(); });
}

cs_tensor *cs_matmul(const cs_tensor *a, const cs_tensor *b) noexcept
{
    return binary(a, b, [](const at::Tensor &x, const at::Tensor &y) { return x.matmul(y); });
}

cs_tensor *cs_linear(const cs_tensor *x, const cs_tensor *weight, const cs_tensor *bias) noexcept
{
    return binary(x, weight, [&](const at::Tensor &input, const at::Tensor &w) {
        return bias == nullptr ? at::linear(input, w) : at::linear(input, w, bias->value);
    });
}

cs_tensor *cs_sum_all(const cs_tensor *tensor) noexcept
{
    return unary(tensor, [](const at::Tensor &t) { return t.sum(); });
}

cs_tensor *cs_mean_all(const cs_tensor *tensor) noexcept
{
    return unary(tensor, [](const at::Tensor &t) { return t.mean(); });
}

cs_status cs_tensor_check_finite(const cs_tensor *tensor, const char *what) noexcept
{
    if (tensor == nullptr)
        return fail_missing();
    bool is_finite = false;
    CS_TRY(effect([&] { is_finite = tensor->value.detach().isfinite().all().item().toBool(); }));
    return is_finite ? CS_OK : cs_fail(CS_INVALID, "%s: not every value is finite", what);
}

cs_tensor *cs_binary_cross_entropy(const cs_tensor *p, const cs_tensor *target) noexcept
{
    return binary(p, target, [](const at::Tensor &a, const at::Tensor &b) { return at::binary_cross_entropy(a, b); });
}

cs_tensor *cs_binary_cross_entropy_with_logits(const cs_tensor *logits, const cs_tensor *target,
                                               const cs_tensor *positive_weight) noexcept
{
    return binary(logits, target, [&](const at::Tensor &a, const at::Tensor &b) {
        return positive_weight == nullptr ? at::binary_cross_entropy_with_logits(a, b)
                                          : at::binary_cross_entropy_with_logits(a, b, {}, positive_weight->value);
    });
}

cs_tensor *cs_cross_entropy(const cs_tensor *logits, const cs_tensor *target, const cs_tensor *class_weights,
                            double label_smoothing) noexcept
{
    const int64_t ignores_none = -100; /* what libtorch calls ignore_index; no class has it */
    return binary(logits, target, [&](const at::Tensor &a, const at::Tensor &b) {
        const c10::optional<at::Tensor> weights =
            class_weights == nullptr ? c10::optional<at::Tensor>() : c10::optional<at::Tensor>(class_weights->value);
        return at::cross_entropy_loss(a, b, weights, at::Reduction::Mean, ignores_none, label_smoothing);
    });
}

cs_status cs_require_gradient(cs_tensor *tensor) noexcept
{
    return tensor == nullptr ? fail_missing() : effect([&] { tensor->value.set_requires_grad(true); });
}

cs_status cs_backward(const cs_tensor *loss) noexcept
{
    return loss == nullptr ? fail_missing() : effect([&] { loss->value.backward(); });
}

cs_tensor *cs_gradient(const cs_tensor *leaf) noexcept
{
    return unary(leaf, [](const at::Tensor &t) {
        if (!t.grad().defined())
            throw std::runtime_error("a tensor has no gradient: no backward pass has reached it");
        return t.grad();
    });
}

cs_status cs_clear_gradient(cs_tensor *leaf) noexcept
{
    return leaf == nullptr ? fail_missing() : effect([&] { leaf->value.mutable_grad().reset(); });
}

cs_status cs_grad(const cs_tensor *loss, cs_tensor *const *inputs, size_t count, bool creates_graph,
                  cs_tensor **ret) noexcept
{
    if (loss == nullptr)
        return fail_missing();
    std::vector<at::Tensor> gradients;
    CS_TRY(effect([&] {
        std::vector<at::Tensor> leaves;
        for (size_t i = 0; i < count; i++)
            leaves.push_back(inputs[i]->value);
        gradients = torch::autograd::grad({loss->value}, leaves, {}, creates_graph, creates_graph);
    }));
    for (size_t i = 0; i < count; i++) {
        ret[i] = value([&] { return gradients[i]; });
        if (ret[i] == nullptr)
            return fail_missing();
    }
    return CS_OK;
}

cs_tensor *cs_detach(const cs_tensor *tensor) noexcept
{
    return unary(tensor, [](const at::Tensor &t) { return t.detach(); });
}

bool cs_grad_off(void) noexcept
{
    bool was_on = at::GradMode::is_enabled();
    at::GradMode::set_enabled(false);
    return was_on;
}

void cs_grad_restore(const bool *was_on) noexcept
{
    at::GradMode::set_enabled(*was_on);
}

cs_status cs_add_into(cs_tensor *target, const cs_tensor *source, double factor) noexcept
{
    if (target == nullptr || source == nullptr)
        return fail_missing();
    return effect([&] {
        at::NoGradGuard no_grad;
        target->value.add_(source->value, factor);
    });
}

cs_status cs_copy_into(cs_tensor *target, const cs_tensor *source) noexcept
{
    if (target == nullptr || source == nullptr)
        return fail_missing();
    return effect([&] {
        at::NoGradGuard no_grad;
        if (target->value.sizes() != source->value.sizes())
            throw std::runtime_error("a tensor was given the values of one of another shape");
        target->value.copy_(source->value);
    });
}

cs_status cs_scale_into(cs_tensor *target, double factor, double number) noexcept
{
    if (target == nullptr)
        return fail_missing();
    return effect([&] {
        at::NoGradGuard no_grad;
        target->value.mul_(factor);
        if (number != 0)
            target->value.add_(number);
    });
}

cs_status cs_add_product_into(cs_tensor *target, const cs_tensor *a, const cs_tensor *b, double factor) noexcept
{
    if (target == nullptr || a == nullptr || b == nullptr)
        return fail_missing();
    return effect([&] {
        at::NoGradGuard no_grad;
        target->value.addcmul_(a->value, b->value, factor);
    });
}

cs_status cs_add_quotient_into(cs_tensor *target, const cs_tensor *a, const cs_tensor *b, double factor) noexcept
{
    if (target == nullptr || a == nullptr || b == nullptr)
        return fail_missing();
    return effect([&] {
        at::NoGradGuard no_grad;
        target->value.addcdiv_(a->value, b->value, factor);
    });
}

cs_generator *cs_generator_new(uint64_t seed) noexcept
{
    cs_generator *generator = nullptr;
    cs_status status = guarded([&] { generator = new cs_generator{at::make_generator<at::CPUGeneratorImpl>(seed)}; },
                               [](cs_status, const char *sentence) -> cs_status {
                                   /* Nothing was asked for that could fail but memory. */
                                   std::fprintf(stderr, "consilium: %s\n", sentence);
                                   std::abort();
                               });
    (void)status;
    return generator;
}

void cs_generator_free(cs_generator *generator) noexcept
{
    delete generator;
}

cs_status cs_tensor_start(uint32_t threads) noexcept
{
    return effect([&] {
        at::set_num_threads(static_cast<int>(threads));
        at::set_num_interop_threads(1);
        set_blas_threads(static_cast<int>(threads));
        at::globalContext().setDeterministicAlgorithms(true, false);
        at::manual_seed(0);

        /* Large enough that the work is split and every pool starts its threads now. */
        at::Tensor weight = at::empty({64, 256}).uniform_(-1, 1).requires_grad_(true);
        at::Tensor p = at::linear(at::ones({4096, 256}), weight).sigmoid();
        at::binary_cross_entropy(p, at::zeros_like(p)).backward();
        at::Tensor order = at::randperm(1000);
        if (!weight.grad().defined() || order.numel() != 1000)
            throw std::runtime_error("libtorch does not compute gradients");
    });
}

const char *cs_tensor_build(void) noexcept
{
    static char build[96] = "";
    if (build[0] == '\0') {
        /* show_config has a line "CPU capability usage: AVX2"; what it lacks is called DEFAULT there too. */
        std::string capability = "unknown";
        CS_IGNORE(effect([&] {
                      const std::string config = at::show_config();
                      const std::string key = "CPU capability usage: ";
                      const size_t at = config.find(key);
                      if (at != std::string::npos)
                          capability = config.substr(at + key.size(), config.find('\n', at) - at - key.size());
                  }),
                  "the name stays unknown");
        std::snprintf(build, sizeof build, "libtorch %s %s cpu", TORCH_VERSION, capability.c_str());
    }
    return build;
}
