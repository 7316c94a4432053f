/* Tensors in C: the whole of libtorch that this tree uses. Called by client/nn, client/data and client/worker.
 *
 * A function that makes a tensor gives a handle owned by the innermost open scope of the calling thread. If it cannot,
 * it notes why in that scope and gives NULL; given NULL, it gives NULL. So write whole expressions and check once, with
 * cs_scope_status or with the first function that returns a cs_status. No exception leaves this header. Scopes belong
 * to the thread that opened them; a handle may be used by one thread at a time. */
#ifndef CS_TENSOR_TENSOR_H
#define CS_TENSOR_TENSOR_H

#ifdef __cplusplus
#define CS_NOEXCEPT noexcept
extern "C" {
#else
#define CS_NOEXCEPT
#endif

#include "common/tensors/safetensors.h"

typedef struct cs_tensor cs_tensor;
typedef struct cs_scope cs_scope;
typedef struct cs_generator cs_generator;

/* ---- scopes and handles ---- */
/* CS_SCOPE(scope); frees, at the end of the block, every tensor made since. Open one inside long loops: a nested scope
 * starts with its parent's status and hands its first failure to the parent. */
#define CS_SCOPE(name) __attribute__((cleanup(cs_scope_close), unused)) cs_scope *name = cs_scope_open()
cs_scope *cs_scope_open(void) CS_NOEXCEPT;
void cs_scope_close(cs_scope **scope) CS_NOEXCEPT;
/* Gives `tensor` to the scope around `scope`, which must be the innermost. */
cs_tensor *cs_scope_return(cs_scope *scope, cs_tensor *tensor) CS_NOEXCEPT;
/* CS_OK, or the first failure inside, with its sentence as the thread's error text. */
CS_MUST_CHECK cs_status cs_scope_status(const cs_scope *scope) CS_NOEXCEPT;
/* Notes a failure of the caller's own in the innermost scope; NULL. */
cs_tensor *cs_tensor_fail(cs_status status, const char *format, ...) CS_NOEXCEPT CS_PRINTF(2, 3);
/* A second handle to the same values outside of every scope; free it with cs_tensor_free. */
cs_tensor *cs_tensor_keep(const cs_tensor *tensor) CS_NOEXCEPT;
void cs_tensor_free(cs_tensor *tensor) CS_NOEXCEPT;
/* Handles of all threads that are alive now; for tests. */
size_t cs_tensor_live_count(void) CS_NOEXCEPT;

/* ---- making ---- */
cs_tensor *cs_tensor_zeros(cs_dtype dtype, size_t rank, const uint64_t *shape) CS_NOEXCEPT;
cs_tensor *cs_tensor_full(cs_dtype dtype, size_t rank, const uint64_t *shape, double value) CS_NOEXCEPT;
/* Copies size_bytes in row-major order; the size must be exactly what dtype and shape need. */
cs_tensor *cs_tensor_from(cs_dtype dtype, size_t rank, const uint64_t *shape, const void *data,
                          size_t size_bytes) CS_NOEXCEPT;
cs_tensor *cs_tensor_clone(const cs_tensor *tensor) CS_NOEXCEPT;
cs_tensor *cs_tensor_to(const cs_tensor *tensor, cs_dtype dtype) CS_NOEXCEPT;
/* Uniform in [low, high), as torch.empty(shape).uniform_(low, high, generator=g). */
cs_tensor *cs_tensor_uniform(cs_generator *generator, cs_dtype dtype, size_t rank, const uint64_t *shape, double low,
                             double high) CS_NOEXCEPT;
/* I64 [n], as torch.randperm(n, generator=g). */
cs_tensor *cs_tensor_randperm(cs_generator *generator, uint64_t n) CS_NOEXCEPT;

/* ---- reading; these take no NULL ---- */
size_t cs_tensor_rank(const cs_tensor *tensor) CS_NOEXCEPT;
uint64_t cs_tensor_size(const cs_tensor *tensor, size_t dimension) CS_NOEXCEPT;
uint64_t cs_tensor_elements(const cs_tensor *tensor) CS_NOEXCEPT;
/* CS_INVALID for types that a safetensors file cannot hold. */
CS_MUST_CHECK cs_status cs_tensor_dtype(const cs_tensor *tensor, cs_dtype *ret) CS_NOEXCEPT;
/* Row-major copy; size_bytes must fit exactly. CS_INVALID otherwise, and with the scope's sentence for NULL. */
CS_MUST_CHECK cs_status cs_tensor_copy_out(const cs_tensor *tensor, void *data, size_t size_bytes) CS_NOEXCEPT;
/* The one element as a double. */
CS_MUST_CHECK cs_status cs_tensor_value(const cs_tensor *tensor, double *ret) CS_NOEXCEPT;

/* ---- shape ---- */
cs_tensor *cs_reshape(const cs_tensor *tensor, size_t rank, const uint64_t *shape) CS_NOEXCEPT;
cs_tensor *cs_transpose(const cs_tensor *matrix) CS_NOEXCEPT;
/* Elements [start, start + length) of a dimension; a view. */
cs_tensor *cs_narrow(const cs_tensor *tensor, size_t dimension, uint64_t start, uint64_t length) CS_NOEXCEPT;
/* The rows of the first dimension named by `index`, an I64 vector. */
cs_tensor *cs_rows(const cs_tensor *tensor, const cs_tensor *index) CS_NOEXCEPT;
/* One behind the other along the first dimension. */
cs_tensor *cs_concatenate(cs_tensor *const *tensors, size_t count) CS_NOEXCEPT;

/* ---- arithmetic, element by element with broadcasting ---- */
cs_tensor *cs_add(const cs_tensor *a, const cs_tensor *b) CS_NOEXCEPT;
cs_tensor *cs_subtract(const cs_tensor *a, const cs_tensor *b) CS_NOEXCEPT;
cs_tensor *cs_multiply(const cs_tensor *a, const cs_tensor *b) CS_NOEXCEPT;
cs_tensor *cs_divide(const cs_tensor *a, const cs_tensor *b) CS_NOEXCEPT;
cs_tensor *cs_scale(const cs_tensor *tensor, double factor) CS_NOEXCEPT;
/* a + factor · b */
cs_tensor *cs_add_scaled(const cs_tensor *a, const cs_tensor *b, double factor) CS_NOEXCEPT;
cs_tensor *cs_square_root(const cs_tensor *tensor) CS_NOEXCEPT;
cs_tensor *cs_sigmoid(const cs_tensor *tensor) CS_NOEXCEPT;
cs_tensor *cs_relu(const cs_tensor *tensor) CS_NOEXCEPT;
cs_tensor *cs_gelu(const cs_tensor *tensor) CS_NOEXCEPT;
cs_tensor *cs_tanh(const cs_tensor *tensor) CS_NOEXCEPT;
/* Over the last dimension. */
cs_tensor *cs_softmax(const cs_tensor *tensor) CS_NOEXCEPT;
/* Each element is 0 with probability p, else divided by 1 − p: what is dropped comes from `generator` alone. */
cs_tensor *cs_dropout(const cs_tensor *tensor, double p, cs_generator *generator) CS_NOEXCEPT;
cs_tensor *cs_matmul(const cs_tensor *a, const cs_tensor *b) CS_NOEXCEPT;
/* x: (rows, in), weight: (out, in), bias: (out) or NULL for none → (rows, out) */
cs_tensor *cs_linear(const cs_tensor *x, const cs_tensor *weight, const cs_tensor *bias) CS_NOEXCEPT;

/* ---- reductions to one element ---- */
cs_tensor *cs_sum_all(const cs_tensor *tensor) CS_NOEXCEPT;
cs_tensor *cs_mean_all(const cs_tensor *tensor) CS_NOEXCEPT;
/* Is every value finite? CS_INVALID with `what` in the sentence, and with the scope's sentence for NULL. */
CS_MUST_CHECK cs_status cs_tensor_check_finite(const cs_tensor *tensor, const char *what) CS_NOEXCEPT;

/* ---- losses, means over the rows ---- */
/* p and target in [0, 1], same shape. */
cs_tensor *cs_binary_cross_entropy(const cs_tensor *p, const cs_tensor *target) CS_NOEXCEPT;
/* positive_weight: one element, by which the terms of y = 1 are multiplied; NULL: 1. */
cs_tensor *cs_binary_cross_entropy_with_logits(const cs_tensor *logits, const cs_tensor *target,
                                               const cs_tensor *positive_weight) CS_NOEXCEPT;
/* logits: (rows, classes), target: I64 (rows), class_weights: (classes) or NULL for all 1. As torch's cross_entropy:
 * with weights the mean is Σ w l / Σ w, and label smoothing takes its share over all classes. */
cs_tensor *cs_cross_entropy(const cs_tensor *logits, const cs_tensor *target, const cs_tensor *class_weights,
                            double label_smoothing) CS_NOEXCEPT;

/* ---- gradients ---- */
/* From now on `tensor`, a leaf, collects its gradient. */
CS_MUST_CHECK cs_status cs_require_gradient(cs_tensor *tensor) CS_NOEXCEPT;
/* Adds d loss / d leaf to each leaf's gradient. A NULL loss reports the scope's first failure. */
CS_MUST_CHECK cs_status cs_backward(const cs_tensor *loss) CS_NOEXCEPT;
/* What cs_backward collected. */
cs_tensor *cs_gradient(const cs_tensor *leaf) CS_NOEXCEPT;
CS_MUST_CHECK cs_status cs_clear_gradient(cs_tensor *leaf) CS_NOEXCEPT;
/* d loss / d inputs[i] into ret[i], owned by the innermost scope; leaves nothing in the leaves. With `creates_graph`
 * the gradients can be differentiated again. */
CS_MUST_CHECK cs_status cs_grad(const cs_tensor *loss, cs_tensor *const *inputs, size_t count, bool creates_graph,
                                cs_tensor **ret) CS_NOEXCEPT;
cs_tensor *cs_detach(const cs_tensor *tensor) CS_NOEXCEPT;
/* CS_NO_GRAD(guard); nothing in the rest of the block is recorded for gradients. */
#define CS_NO_GRAD(name) __attribute__((cleanup(cs_grad_restore))) CS_UNUSED bool name = cs_grad_off()
bool cs_grad_off(void) CS_NOEXCEPT;
void cs_grad_restore(const bool *was_on) CS_NOEXCEPT;

/* ---- in place, unrecorded ---- */
/* target += factor · source */
CS_MUST_CHECK cs_status cs_add_into(cs_tensor *target, const cs_tensor *source, double factor) CS_NOEXCEPT;
CS_MUST_CHECK cs_status cs_copy_into(cs_tensor *target, const cs_tensor *source) CS_NOEXCEPT;
/* target ← target · factor + number */
CS_MUST_CHECK cs_status cs_scale_into(cs_tensor *target, double factor, double number) CS_NOEXCEPT;
/* target += factor · a · b and target += factor · a / b, element by element */
CS_MUST_CHECK cs_status cs_add_product_into(cs_tensor *target, const cs_tensor *a, const cs_tensor *b,
                                            double factor) CS_NOEXCEPT;
CS_MUST_CHECK cs_status cs_add_quotient_into(cs_tensor *target, const cs_tensor *a, const cs_tensor *b,
                                             double factor) CS_NOEXCEPT;

/* ---- random streams ---- */
/* libtorch's CPU generator: the same numbers as torch.manual_seed(seed) and the default generator. */
cs_generator *cs_generator_new(uint64_t seed) CS_NOEXCEPT;
void cs_generator_free(cs_generator *generator) CS_NOEXCEPT;

/* ---- the library ---- */
/* Before anything else, once: threads of the matrix products, deterministic algorithms, and a first pass through
 * random numbers, products and gradients, after which libtorch opens no file and starts no thread of its own. */
CS_MUST_CHECK cs_status cs_tensor_start(uint32_t threads) CS_NOEXCEPT;
/* "libtorch 1.13.1 AVX512 cpu". Static memory. */
const char *cs_tensor_build(void) CS_NOEXCEPT;

CS_DEFINE_AUTO_PTR(cs_tensor)
CS_DEFINE_AUTO_PTR(cs_generator)

#ifdef __cplusplus
}
#endif

#endif
