"""What the notebooks define; their code is there. Written by `make notebooks`."""


def checkers(number):
    """The exercise checkers of a notebook as one object: `checkers("06").check_…(your_function)`.

    number: the notebook's, as in "06". Raises ImportError where there is no such notebook.
    """


def vanilla_gradient(model, x, target=None):
    """Gradient of the class score with respect to the picture, `(N, 3, H, W)`, signed.

    x: preprocessed `(N, 3, H, W)`. target: class index, `(N,)` indices, or None for each row's top
    class. Raises ValueError for a wrong x or target, IndexError for a class that does not exist.
    Simonyan et al. 2013, section 3: $w = \\partial S_c / \\partial x$.
    """


def saliency_map(gradient):
    """One value per pixel, `(N, 1, H, W)`: the largest absolute gradient over the colour channels.

    gradient: `(N, 3, H, W)`. Simonyan et al. 2013: $M_{ij} = \\max_{ch} |w_{ch,ij}|$.
    """


def probability_gradient(model, x, target=None):
    """Gradient of the class's probability, after the softmax: `(N, 3, H, W)`, signed.

    Arguments and errors as for `vanilla_gradient`.
    """


def where_open(f, R):
    """The signal R where a ReLU with the input f was open, else zero; both of one shape, like the result."""


def backprop_rule(f, R):
    """The gradient: pass a signal where the ReLU was open. f: its input; R: the signal from above, of its shape."""


def deconvnet_rule(f, R):
    """Pass positive signals, whatever the ReLU did on the way up. f: its input; R: the signal, of its shape.

    Zeiler and Fergus 2013: $R^l = 1[R^{l+1} > 0]\\,R^{l+1}$.
    """


def guided_rule(f, R):
    """Pass a signal where the ReLU was open and the signal is positive. f: its input; R: the signal, of its shape.

    Springenberg et al. 2014: $R^l = 1[f^l > 0]\\,1[R^{l+1} > 0]\\,R^{l+1}$.
    """


def guided_backprop(model, x, target=None):
    """Guided backpropagation from the class score to the picture: `(N, 3, H, W)`, signed.

    x: preprocessed `(N, 3, H, W)`. target: class index, `(N,)` indices, or None for each row's top
    class. Raises ValueError for a network without ReLUs and for a wrong x or target,
    IndexError for a class that does not exist. Springenberg et al. 2014.
    """


def deconvnet(model, x, target=None):
    """The deconvnet's signal from the class score to the picture: `(N, 3, H, W)`, signed.

    Arguments and errors as for `guided_backprop`. Zeiler and Fergus 2013; its unpooling with
    switches is what a max-pool's gradient does anyway.
    """


def positive_saliency(gradient):
    """The positive part of a signal: max(0, g) divided by its maximum per row, `(N, 3, H, W)` in [0, 1].

    gradient: `(N, 3, H, W)`. Of a gradient it is what raises the score. Of a guided signal it is not: there both signs
    come from the filters of the first layer. A row without a positive value is all zero.
    """


def negative_saliency(gradient):
    """The negative part of a signal: max(0, -g) divided by its maximum per row, `(N, 3, H, W)` in [0, 1].

    gradient, and what the part means: as for `positive_saliency`. A row without a negative value is all zero.
    """


def noise_batches(shape, n, seed=0, batch_size=8):
    """n pictures of standard normal noise, in batches `(k, *shape)` with k at most batch_size.

    They are drawn on the CPU, one after the other, so that they do not depend on batch_size.
    Raises ValueError for n or batch_size below 1.
    """


def smooth_grad(model, x, target=None, *, method=..., noise=0.15, n=50, statistic='mean', seed=0, batch_size=8):
    """A statistic of `method`'s maps of n noisy copies of the picture, in the shape of one map.

    x: preprocessed `(N, 3, H, W)`. target: as for `method`; None: each row's top class, without
    noise. method: any technique `f(model, x, target)`. noise: standard deviation, a fraction of
    each row's range. statistic: "mean" (Smilkov et al. 2017), "square" (mean of the squares) or
    "variance" (with 1/n). The same noise, from `seed`, serves every row and every batch_size.
    Raises ValueError for n or batch_size below 1, noise below 0 or another statistic; else as `method`.
    """


def straight_way(start, x, t):
    """The pictures at the positions t `(T,)` on the straight way from start to x: `(T, 3, H, W)`.

    start, x: one picture each, `(1, 3, H, W)`; t = 0 is start, t = 1 is x.
    """


def quadrature(rule, steps):
    """Positions and weights that integrate a function over [0, 1]: two float64 tensors `(steps,)`.

    The weights add up to 1. rule: "gauss-legendre", "midpoint" or "trapezoid" (2 steps or more).
    Raises ValueError for another rule or too few steps.
    """


def integrated_gradients(model, x, target=None, *, baseline=None, steps=50, rule='gauss-legendre',
                         multiply_by_inputs=True, batch_size=8):
    """The mean gradient on the straight way from a baseline, times the way: `(N, 3, H, W)`, signed.

    x: preprocessed `(N, 3, H, W)`. target: a class, `(N,)` classes, or None: each row's top class.
    baseline: a tensor that broadcasts to x, None for zeros (the mean colour). rule, steps: see
    `quadrature`. multiply_by_inputs=False leaves the mean gradient. Memory is flat in steps.
    Raises ValueError for a baseline that does not fit or batch_size < 1; else as `quadrature` and
    `vanilla_gradient` do. Sundararajan et al. 2017:
    $IG = (x - x') \\odot \\int_0^1 \\partial S_c(x' + t(x - x')) / \\partial x\\,dt$.
    """


def grad_times_image(model, x, target=None, *, method=...):
    """A gradient times the picture as the network sees it: `(N, 3, H, W)`, signed.

    x: preprocessed `(N, 3, H, W)`. target: class index, `(N,)` indices, or None for each row's top
    class. method: any `f(model, x, target)` that gives a gradient; integrated gradients go in with
    `multiply_by_inputs=False`. Raises what `method` raises.
    Shrikumar et al. 2016: $x \\odot \\partial S_c / \\partial x$.
    """


def activation_and_gradient(model, x, target=None, layer=None):
    """The activation $A$ of a layer and the gradient of the class score there: two tensors `(N, C, h, w)`.

    x, target, layer and errors: as for `grad_cam`. A layer that is called several times counts with its last call.
    """


def grad_cam(model, x, target=None, *, layer=None, relu=True):
    """Grad-CAM of the class score at a layer: `(N, 1, h, w)`, the layer's resolution.

    x: preprocessed `(N, 3, H, W)`. target: class index, `(N,)` indices, or None for each row's
    top class. layer: a module or its dotted name, with an output `(N, C, h, w)`; None for the
    last spatial layer. relu: keep only what speaks for the class, so that nothing is negative.
    Raises ValueError for a wrong x, target or layer, IndexError for a class that is not there.
    Selvaraju et al. 2016, equations 1 and 2: $L^c = \\mathrm{ReLU}(\\sum_k \\alpha^c_k A^k)$.
    """


def draw_grad_cam(model, image, target, layer, drawing, kind='for the class'):
    """Grad-CAM drawn over a photograph: the picture, and in words its largest value.

    image: a `PIL.Image`. target: a class index, or None for the top class. layer: a dotted name. drawing: called with
    the pixels and the map. kind: "for the class", "for and against", "minus the strongest rival", "not averaged".
    """


def split_panels(image):
    """Masks `(1, 1, H, W)` of the two panels of a montage, the upper or left one first.

    image: `(1, 3, H, W)` in [0, 1]. The border is where neighbouring rows or columns differ most.
    """


def mass_share(values, region):
    """Share of a map's absolute mass in a region: `(N,)`, between 0 and 1; 0 for a map of zeros.

    values: `(N, C, h, w)`, enlarged to the region's size. region: mask `(1, 1, H, W)`.
    """


def guided_grad_cam(model, x, target=None, *, layer=None):
    """Guided backprop, weighted by where Grad-CAM looks: `(N, 3, H, W)`, signed.

    x: preprocessed `(N, 3, H, W)`. target: class index, `(N,)` indices, or None for each row's top
    class. layer: as for `grad_cam`, whose map is enlarged bilinearly to the picture's size.
    Raises ValueError for a network without ReLUs, else as `grad_cam`.
    Selvaraju et al. 2016, section 3.2: $M^c = \\mathrm{up}(L^c) \\odot R^0$.
    """


def draw_guided_grad_cam(model, image, target, layer, part, drawing):
    """Guided Grad-CAM of a photograph, or one of its factors, drawn.

    image: a `PIL.Image`. target: a class index, or None for the top class. layer: a dotted name.
    part: "product", "map" or "signal". drawing: called with the pixels, the values and `signed`.
    """


def channel_masks(A, size):
    """The channels of A `(1, C, h, w)` as masks `(C, 1, H, W)` in [0, 1]: enlarged, then stretched.

    size: (H, W). A channel that is the same everywhere gives a mask of zeros.
    """


def channels_to_try(A, channels=None):
    """Indices of the channels of A `(1, C, h, w)` that are not constant, the strongest mean first.

    channels: keep only so many; None for all. A constant channel, one that varies by less than its
    numbers are rounded, masks nothing: it has no weight.
    """


def masked_scores(model, x, A, batch_size=8):
    """Scores of one picture x under each channel of A `(1, C, h, w)` as a mask: `(1 + C, classes)`.

    The first row is that of the empty picture: zeros, the mean colour, to which masks fade.
    """


def weightings():
    """The three ways to weigh, by name: functions of `masked_scores` and a class, which give `(C,)`."""


def channel_weights(scores, target, weights):
    """How much each mask supports a class, from `masked_scores`: `(1 + C, classes)` to `(C,)`.

    weights: "softmax", "increase" or "probability". Raises ValueError for another name.
    """


def weighted_map(A, alpha):
    """ReLU of the channels of A `(1, C, h, w)` summed with weights alpha `(C,)`: `(1, 1, h, w)`."""


def score_cam(model, x, target=None, *, layer=None, weights='softmax', channels=None, batch_size=8):
    """Score-CAM of the class at a layer, without gradients: `(N, 1, h, w)`, not negative.

    x, target, layer: as for `grad_cam`. weights: what a channel counts by: "softmax", over the
    channels, of the increases of the score over that of the mean colour (the paper), the
    "increase" itself, or the "probability" of the class. channels: only so many, the strongest by
    mean activation; None for all. Constant channels never count. Raises ValueError for another
    `weights`, channels < 1 or batch_size < 1; else as `grad_cam`.
    Wang et al. 2019: $L^c = \\mathrm{ReLU}(\\sum_k \\alpha^c_k A^k)$.
    """


def normalized(gradient):
    """Each row of a real or complex gradient divided by its root mean square; zero stays zero."""


def ascend(model, objective, parameters, picture, transform=None, *, steps, rate, constrain=None):
    """Change parameters so that the objective of the picture they describe rises: yields `Step`s.

    objective(x): a tensor `(N,)` from the network's input. picture(parameters): the image
    `(N, 3, H, W)` in [0, 1]. transform(image): how the network gets to see it, another way at
    every step. Each step goes `rate` along the normalized gradient, then
    constrain(parameters, gradient, number), if given, returns what to go on with.
    A `Step` holds the picture and its objective before that change, so step 1 is the start.
    """


def pixel_parameterization(shape, seed=0, *, contrast=0.05, device=None):
    """Start and picture function for `ascend`: one number for each pixel, squeezed into (0, 1).

    shape: `(N, 3, H, W)`; every row starts from the same noise.
    """


def before_relu(model, layer, x=None):
    """Names of the layers whose outputs, side by side, are `layer` before its last ReLU.

    layer: a module or its dotted name. A ReLU: what enters it, the layer that gives it, or where a
    sum does, the ReLU's name and ":input" (`record` knows what that means). A Fire block: its two
    expanding convolutions, whose ReLUs it lays side by side. A sequence: what its last layer is.
    Any other layer stands for itself. x: pictures, for networks that do not take 224 by 224.
    Raises ValueError for a layer that the model does not have.
    """


def filter_response(model, x, layer, channel, position=None, leak=0.1):
    """How strongly a filter responds: a tensor `(N,)` in the autograd graph.

    layer: a module or its dotted name; what counts is its value before the ReLU (`before_relu`),
    negative ones times `leak`: 0 is the ReLU, 1 the plain value. channel: an int, or one for each
    row of x. position: None for the mean over all positions, or (i, j) for one unit.
    Raises IndexError for a channel that the layer does not have.
    """


def fourier_weights(size):
    """One over the frequency of each wave of a picture (height, width): `(H, W // 2 + 1)`.

    The mean colour would have frequency 0; it is painted like one wave per picture. The weights
    have mean square 1, so that a step of the same rate changes pixels as much as waves.
    """


def fourier_to_image(coefficients, size):
    """The picture `(N, C, H, W)` of complex coefficients `(N, C, H, W // 2 + 1)`."""


def image_to_fourier(image):
    """Coefficients of which `fourier_to_image` makes this picture `(N, C, H, W)`."""


def fourier_coefficients(shape, seed=0, *, contrast=0.05, device=None):
    """Random coefficients for pictures of shape `(N, 3, H, W)`, the same noise in every row."""


def color_axes(device=None):
    """Columns: the directions in which colours of photographs vary independently, and how far."""


def decorrelated_to_rgb(image):
    """From brightness, warm against cold, green against magenta `(N, 3, H, W)` to RGB."""


def rgb_to_decorrelated(image):
    """The inverse of `decorrelated_to_rgb`."""


def fourier_picture(coefficients, size):
    """The picture `(N, 3, H, W)` in [0, 1] of coefficients for decorrelated colours."""


def picture_to_fourier(image):
    """Coefficients of which `fourier_picture` makes this picture; its values lie inside (0, 1)."""


def fourier_parameterization(shape, seed=0, *, contrast=0.05, device=None):
    """Start and picture function for `ascend`: waves in decorrelated colours.

    shape: `(N, 3, H, W)`; every row starts from the same noise.
    """


def jitter(image, shift):
    """Pictures `(N, 3, H, W)` moved by (down, right) pixels; what leaves comes in opposite.

    `jitter(jitter(image, (a, b)), (-a, -b))` is the image again.
    """


def rotate_and_scale(image, angle, scale):
    """Pictures `(N, 3, H, W)` turned counter-clockwise by `angle` degrees, and enlarged.

    The size stays; what lies outside is mirrored.
    """


def random_transform(seed=0, *, shift=8, angle=5, zoom=0.05):
    """A function that moves, turns and enlarges pictures a little, differently at each call.

    shift: up to so many pixels each way. angle: up to so many degrees. zoom: up to this fraction.
    """


def visualize_filter(model, layer, channel, *, position=None, leak=0.1, parameterization=..., shift=8, angle=5,
                     zoom=0.05, steps=80, size=128, rate=0.05, seed=0):
    """Pictures that excite filters of a layer: yields `Step`s with images `(N, 3, size, size)`.

    channel: an int or a sequence, which makes one batch, each row from the same start. Objective:
    layer, position, leak, as for `filter_response`. parameterization: `fourier_parameterization`,
    `pixel_parameterization` or the like. Transformations: shift, angle, zoom, as for
    `random_transform`. rate: of the normalized gradient. seed: of start and transformations.
    Raises ValueError for an unknown layer, IndexError for a channel that is not there.
    Erhan et al. 2009: $x^* = \\arg\\max_{\\|x\\| = \\rho} h(x)$.
    """


def unit_activation(A, channel, position=None):
    """One channel of A `(N, C, h, w)`, per row: its mean, or its value at (i, j): `(N,)`.

    Raises IndexError for a channel or position outside the layer.
    """


def layer_activation_gradient(model, x, layer, channel, position=None, rule='guided'):
    """From one channel or one unit of a layer back to the picture: `(N, 3, H, W)`, signed.

    x: preprocessed `(N, 3, H, W)`. layer: a module or its dotted name, with an output `(N, C, h, w)`. position: a unit
    (i, j), or None for the channel's mean. rule: "guided" (Springenberg et al. 2014) or "plain", the gradient. Raises
    IndexError for a unit that is not there, ValueError for another rule or layer, and for "guided" without ReLUs.
    """


def data_term(phi, phi_0):
    """How far representations are from given ones: `|phi - phi_0|² / |phi_0|²`, a tensor `(N,)`, 0 where equal.

    phi, phi_0: tensors `(N, …)` of one shape. Mahendran and Vedaldi 2014, equation 4.
    """


def alpha_norm(x, alpha=6, bound=1.4):
    """Mean of `|x / bound|^alpha` per row: a tensor `(N,)`, small while all values are within the bound.

    x: `(N, C, H, W)`, normalized. Mahendran and Vedaldi 2014, section 2.1.
    """


def total_variation(x, beta=2):
    """Mean over the pixels of (vertical step² + horizontal step²)^(beta/2) per row: a tensor `(N,)`.

    x: `(N, C, H, W)`, at least 2 by 2. The last row and column, which lack a neighbour, start no step.
    Mahendran and Vedaldi 2014, section 2.2.
    """


def inversion_terms(model, x, layer, phi_0):
    """The data term, the alpha-norm and the total variation of a picture: three tensors `(N,)` in the graph.

    x: `(N, 3, H, W)`, normalized. phi_0: the representation at `layer` to be matched. Call it inside
    `evaluation_mode`. The network runs only up to the layer.
    """


def invert_representation(model, x, layer, *, steps=300, rate=0.3, alpha_weight=0.01, tv_weight=4.0, seed=0,
                          start=None):
    """A picture that a layer can hardly tell from x: yields `Step`s with images `(N, 3, H, W)` in [0, 1].

    x: preprocessed `(N, 3, H, W)`. layer: a module or its dotted name. rate: of Adam at first; it falls to 0 in a
    straight line. start: a preprocessed picture of x's shape, or None for faint noise of this seed, the same in every
    row. A Step's objective is the energy, `(N,)`; from noise it falls. Raises ValueError for a wrong x or layer.
    Mahendran and Vedaldi 2014, equation 1: data term + alpha_weight · alpha-norm + tv_weight · total variation.
    """


def layer_strength(model, x, layer, channel=None):
    """Half the squared activation of a layer per position: a tensor `(N,)` in the autograd graph.

    layer: a module or its dotted name, with an output `(N, C, h, w)`. channel: None for all of them together,
    or the number of one. Call it inside `evaluation_mode`; the network runs only up to the layer.
    Raises IndexError for a channel that the layer does not have.
    """


def resized(image, size):
    """Pictures `(N, 3, H, W)` scaled to (height, width), averaged where they shrink."""


def deep_dream(model, x, layer, channel=None, *, octaves=4, scale=1.4, steps=12, rate=0.02, shift=32, seed=0):
    """A photograph with more of what a layer sees in it: yields `Step`s with images `(N, 3, H, W)` in [0, 1].

    x: preprocessed, of any height and width, which the images keep. layer, channel: see `layer_strength`, whose
    value is a Step's objective. octaves: sizes to dream at, each `scale` times the one before, the last that of
    x; steps: in each of them. rate: root mean square change of the pixels per step. shift: the largest jitter,
    in pixels. seed: of the jitter. Raises ValueError for a wrong x or layer, IndexError for a wrong channel.
    Mordvintsev, Olah and Tyka 2015.
    """


def blur(image, sigma):
    """Each channel of `(N, C, H, W)` blurred by a Gaussian, sigma in pixels."""


def blur_every(steps, sigma):
    """A rule for `ascend`: every so many steps the parameters are blurred."""


def one_after_another(*rules):
    """A rule for `ascend` that applies several."""


def clip_small_norm(share):
    """A rule for `ascend`: that share of the pixels whose norm is smallest becomes gray."""


def clip_small_contribution(share):
    """A rule for `ascend`: that share of the pixels that count least becomes gray."""


def keep_largest(parameters, size, share):
    """Zero where size `(N, 1, H, W)` is among the smallest `share` of its row."""


def class_evidence(model, x, target, rival=0.0):
    """How much speaks for a class, before the softmax and SqueezeNet's last ReLU: `(N,)`, in the graph.

    target and errors: as for `class_score`, but never None. rival: the weight of the soft maximum of the other classes.
    Networks that end in a linear layer have no ReLU there: for them it is the score itself.
    """


def generate_class_image(model, target, *, rival=0.5, penalty=None, parameterization=..., decay=0.02, constrain=None,
                         shift=32, angle=15, zoom=0.3, steps=150, size=224, rate=0.03, seed=0):
    """Pictures that the network takes for a class: yields `Step`s with images `(N, 3, size, size)`.

    target: an int or a sequence, which makes one batch, each row from the same start. Objective:
    `class_evidence` with `rival`, less penalty(x) `(N,)` of the network's input x, if given. After
    each step the parameters shrink by the fraction `decay`; constrain(parameters, gradient,
    number) may then change them. The other options are those of `visualize_filter`.
    Raises IndexError for a class that the network does not have, ValueError for what is no index.
    Simonyan et al. 2013: $I^* = \\arg\\max_I S_c(I) - \\lambda \\|I\\|_2^2$.
    """


def loss_sign(model, x, target, targeted):
    """Signs of the steps that raise the cross-entropy of the target, or lower it if targeted: `(N, 3, H, W)`."""


def classes_to_attack(model, x, target, targeted):
    """The class to leave (None: the top class), or with targeted=True to reach, of each row: `(N,)`."""


def fast_gradient_sign(model, x, target=None, *, epsilon=..., targeted=False):
    """A picture that leaves its class, or reaches another, by one step: as the network sees it, `(N, 3, H, W)`.

    x: preprocessed `(N, 3, H, W)`. target: the class to leave, None for each row's top class; with targeted=True the
    class to reach. epsilon: how far each value may move, as a fraction of the pixel range, in which the result stays.
    Raises ValueError for a wrong x, target or epsilon, IndexError for a class that does not exist.
    Goodfellow et al. 2014: $x + \\epsilon\\,\\mathrm{sign}\\,\\nabla_x L(x, c)$.
    """


def projected_gradient(model, x, target=None, *, epsilon=..., targeted=False, steps=10, step=None):
    """As `fast_gradient_sign`, in several steps: as the network sees it, `(N, 3, H, W)`.

    x, target, epsilon, targeted: as there. steps: how many, at least 1. step: the size of each, a fraction of the pixel
    range; None for 2.5 · epsilon / steps. The walk starts at x. Errors as in `fast_gradient_sign`.
    Kurakin et al. 2016, Madry et al. 2017.
    """


def static(shape, seed=0, device=None):
    """Squares of static `(N, 3, H, W)` in [0, 1], the same in every row: gray and normal noise, cut to the range."""


def ascend_until_certain(model, image, target, price=None, *, confidence, steps, rate):
    """Pixels climb the log-odds of a class until every row has the confidence: yields `Step`s.

    image: the start `(N, 3, H, W)` in [0, 1]. target: a LongTensor `(N,)`. price(x) `(N,)`, of the
    network's input, is taken off, if given. Rows that have arrived climb on until all have.
    Raises ValueError for a confidence outside 0…1.
    """


def fooling_image(model, target, *, confidence=0.99, size=224, steps=100, rate=..., seed=0):
    """Static that a network takes for a class: yields `Step`s with images `(N, 3, size, size)`.

    target: an int or a sequence, which makes one batch, each row from the same static. rate: how far
    a step moves the pixels, root mean square, as a fraction of their range. Ends when every row has
    the confidence, or after so many steps. Objective: the log-odds of the class.
    Raises IndexError for a class that the network does not have, ValueError for what is no index.
    """


def adversarial_ascent(model, x, target, *, proximity=2, confidence=0.99, steps=60, rate=..., seed=0):
    """Photographs moved until a network takes them for the target: yields `Step`s with images like x.

    x: preprocessed `(N, 3, H, W)`. target: an int, or one class for each row. proximity: the price of
    the squared change, root mean square in gray levels, in log-odds. rate, confidence, steps: as for
    `fooling_image`. seed: of the faint noise, a hundredth of a step, with which the walk begins.
    Objective: log-odds less price. Raises errors as `class_score` does.
    """


def bent(sums):
    """Units `(N, 4k, P)` through the four functions that our drawing networks know, k units each."""


def cppn_picture(genomes, size=224):
    """What little networks draw: `(N, 3, size, size)` in [0, 1]. genomes `(N, 228)`: their weights."""


def pixel_picture(genomes, size=224):
    """Pictures `(N, 3, size, size)` in [0, 1]. genomes `(N, 3 · size²)`: a number for each value."""


def children(elites, count, dice):
    """Copies of so many random elites, in each a tenth of the numbers changed: genomes `(count, G)`."""


def admit(elites, genomes, p):
    """Put each genome in the place of every elite that it surpasses. elites: class → (probability, genome)."""


def evolve_fooling_image(model, *, encoding='cppn', evaluations=1200, keep=8, seed=0):
    """Pictures that some class or other is seen in, without a gradient: yields `Step`s, images `(keep, 3, 224, 224)`.

    encoding: "cppn" or "pixels", how a genome becomes a picture. evaluations: how many pictures the
    network is asked about, eight a step. keep: so many elites, the best of any class, are shown; the
    objective is their probability. MAP-Elites over all classes of the network, with no target.
    Raises ValueError for another encoding, or less than one evaluation or picture.
    """


def layer_and_gradient(model, x, target=None, layer=None):
    """What a layer gives for x, and the gradient of the class score there: A and g, both `(N, C, h, w)`, detached.

    x: preprocessed `(N, 3, H, W)`. target: class index, `(N,)` indices, or None for each row's top class. layer: a
    module or its dotted name, None for the last spatial layer; of a layer called several times the last call counts.
    Raises ValueError for a wrong x, target or layer, IndexError for a class that is not there.
    """


def layer_cam(model, x, target=None, *, layer=None, relu=True):
    """LayerCAM of the class score at a layer: `(N, 1, h, w)`, the layer's resolution.

    x, target, layer and errors: as in `layer_and_gradient`. relu: the outer one, so that nothing is negative.
    Jiang et al. 2021: $\\mathrm{ReLU}(\\sum_k \\mathrm{ReLU}(g^k) \\odot A^k)$.
    """


def hires_cam(model, x, target=None, *, layer=None, relu=True):
    """HiResCAM of the class score at a layer: `(N, 1, h, w)`, the layer's resolution.

    x, target, layer and errors: as in `layer_and_gradient`. relu: keep only what speaks for the class. Without it the
    map adds up to the score, less what biases above the layer give, in networks that are linear but for kinks.
    Draelos and Carin 2020: $\\mathrm{ReLU}(\\sum_k g^k \\odot A^k)$.
    """


def share_out(layer, R, *parts, bias=0):
    """Relevance R of a layer's outputs, handed to its inputs in proportion to what they contributed; of their shape.

    layer: layer(a, w) gives outputs for inputs a and weights w, without a bias. parts: pairs (a, w) of tensors; input i
    contributes c_ij, the sum of a_i w_ij over the pairs. bias: what output j has besides; its share is lost.
    $R_i = \\sum_j \\frac{c_{ij}}{z_j} R_j,\\; z_j = \\sum_i c_{ij} + b_j$; 1e-6 is added to the absolute value of z_j.
    """


def epsilon_rule(layer, a, R):
    """In proportion to $a_i w_{ij}$; biases keep their share. Returns the relevance of the inputs a, of their shape.

    layer: with its weight and bias; R: the relevance of its outputs. Bach et al. 2015.
    """


def agreeing(a, w):
    """The pairs of inputs and weights whose products are the positive part of $a_i w_{ij}$: those of equal signs."""


def z_plus_rule(layer, a, R, biases=False):
    """In proportion to $(a_i w_{ij})^+$. Arguments and result as for `epsilon_rule`.

    biases: positive ones keep their share; without them, nothing is lost. Montavon et al. 2017; Bach et al. 2015 with
    α = 1, β = 0.
    """


def box_rule(layer, a, R, low, high):
    """zᴮ: in proportion to $a_i w_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-$, for pixels between low and high.

    low, high: tensors that fit a. Else as for `epsilon_rule`. Montavon et al. 2017.
    """


def returning_rule(layer, a, R):
    """The ε-rule that hands the biases' share back, in proportion to $|a_i w_{ij}|$. Arguments as for `epsilon_rule`.

    Raises ValueError for inputs of both signs, with which its denominators may vanish.
    """


def gamma_rule(layer, a, R, gamma=0.25):
    """γ: in proportion to $a_i w_{ij} + γ (a_i w_{ij})^±$, with the sign of their sum. As `epsilon_rule`.

    Montavon et al. 2019; for inputs of both signs Andéol et al. 2021.
    """


def alpha_beta_rule(layer, a, R, alpha=2):
    """αβ: α for positive contributions, β = α - 1 against negative ones. As `epsilon_rule`. Bach et al. 2015."""


def flat_rule(layer, a, R):
    """The same for every input. Arguments and result as for `epsilon_rule`. Lapuschkin et al. 2019."""


def lrp_rules(model, x, composite='mixed'):
    """A composite of `lrp` as a table: layer → rule, in the order in which x goes through the layers."""


def lrp(model, x, target=None, *, composite='mixed'):
    """Layer-wise relevance propagation: `(N, 3, H, W)`, signed; adds up to the score as far as its rules conserve.

    x: preprocessed `(N, 3, H, W)`. target: class index, `(N,)` indices, or None for each row's top class. composite:
    "mixed" (ε with the biases' share returned in the upper half of the layers, z⁺ below, zᴮ first), "epsilon", "gamma",
    "alpha_beta", "epsilon_plus_flat", or a table layer → rule. BatchNorm is folded into the convolution before it.
    Raises ValueError for a wrong x, target or composite and for a network in which something has no rule, IndexError
    for a class that does not exist. Bach et al. 2015.
    """


def patch_grid(size, patch, stride):
    """Where patches lie: boxes (top, left, height, width), row by row, and the grid (rows, columns).

    size: (H, W) of the picture. Neighbours are stride pixels apart; the last ones may hang over the edge.
    """


def occlusion(model, x, target=None, *, patch=32, stride=16, fill=None, batch_size=8):
    """How far the score falls when a patch is covered, for patches all over the picture: `(N, 1, h, w)`, signed.

    x: preprocessed `(N, 3, H, W)`. target: a class, one for each row, or None for each row's top class. patch, stride:
    its side and steps in pixels; h, w: the positions, ⌈(H − patch) / stride⌉ + 1. fill: what the hole shows, as the
    network sees it: None for zeros, the mean colour, or what broadcasts to x. Raises ValueError for options without
    sense, a wrong x or target, IndexError for an unknown class. Zeiler, Fergus 2013.
    """


def random_masks(size, masks, cells, keep, seed=0, batch_size=8):
    """Random masks for a picture of size (H, W): yields batches `(k, 1, H, W)` in [0, 1], k at most batch_size.

    cells: how many a side, of which each is kept with probability `keep`. The cells are drawn on the CPU and do not
    depend on batch_size. Petsiuk et al. 2018.
    """


def rise(model, x, target=None, *, masks=400, cells=7, keep=0.5, seed=0, batch_size=8):
    """The mean score of randomly masked pictures, weighted by what they show of each pixel: `(N, 1, H, W)`.

    x: preprocessed `(N, 3, H, W)`. target: a class, one for each row, or None for each row's top class. masks: how
    many; cells: of their grid, a side; keep: the probability of each cell, above 0 and at most 1. The same masks, from
    `seed`, serve every row and every batch_size. A pixel that no mask shows gets 0. Raises ValueError for options
    without sense, a wrong x or target, and IndexError for a class that does not exist.
    Petsiuk et al. 2018, divided by the sum of the masks: $\\sum_k S_c(x \\odot M_k) M_k / \\sum_k M_k$.
    """


def cascade(model, x, explain, parts, target=None, *, measure=..., alone=False, seed=0):
    """How alike a map stays to the trained network's while parts are shuffled one after another: `(parts, N, …)`.

    x: preprocessed `(N, 3, H, W)`. explain: a function of (model, x, classes) that gives a map for each row. parts:
    sequences of layers, each a module or its dotted name; part k is shuffled together with all parts before it, or
    alone. target: a class, one for each row, or None for the trained network's top class. measure: a function of the
    two maps that gives `(N, …)`. seed: of `randomized`. Raises ValueError for an unknown layer or a wrong x or target,
    IndexError for an unknown class. Adebayo et al. 2018, who draw fresh weights.
    """


def local_mean(values, sigma=1.5):
    """The mean around each pixel, by a Gaussian window of 11 pixels: `(N, 1, H, W)` to `(N, 1, H − 10, W − 10)`."""


def ssim(a, b):
    """Structural similarity of pictures: `(N,)`, 1 where they are equal, mean over all windows.

    a, b: `(N, 1, H, W)` in [0, 1], at least 11 by 11. Wang et al. 2004:
    $\\frac{(2 m_a m_b + c_1)(2 s_{ab} + c_2)}{(m_a^2 + m_b^2 + c_1)(s_a^2 + s_b^2 + c_2)}$, m the means, s the
    (co)variances in a window, $c_1 = 0.01^2$, $c_2 = 0.03^2$.
    """


def blurred(values, sigma):
    """Pictures or maps `(N, C, H, W)` under a Gaussian of so many pixels, cut off at 3 σ and at the picture's size."""


def empty_picture(model, x, fill='blur'):
    """What stands in for the pixels of x that are not there: `(N, 3, H, W)`, as the network sees it.

    fill: "blur" (x under a Gaussian of 16 pixels), "mean" (zeros, the mean colour) or "black".
    Raises ValueError for another name.
    """


def class_probability(model, x, classes):
    """The probability of one class for all pictures, or of one for each: `(N,)`, detached."""


def removal_ranks(x, values, seed=0):
    """The place of each pixel in the order of a map, 0 for the largest value: integers `(N, 1, H, W)`.

    x: pictures `(N, 3, H, W)`. values: maps `(N, 1, h, w)`, signed, enlarged bilinearly. Equal values come in an order
    drawn from the seed, the same for every row. Raises ValueError for other maps, or for values that are not finite.
    """


def exchange_curve(model, before, after, ranks, classes, steps, batch_size=8):
    """Probabilities of a class while pixels of one picture become those of another, in the order of their ranks.

    before, after: `(N, 3, H, W)`. ranks: `(N, 1, H, W)`. After step k round(k · HW / steps) pixels are exchanged.
    Returns `(N, steps + 1)`.
    """


def deletion_curve(model, x, values, target=None, *, steps=28, fill='blur', seed=0):
    """Probabilities of a class while pixels are taken away, the largest value of a map first: `(N, steps + 1)`.

    x: preprocessed `(N, 3, H, W)`. values: maps `(N, 1, h, w)`, signed, enlarged bilinearly. target: a class, one for
    each row, or None for each row's top class. At step k, round(k · HW / steps) pixels show the filling: "blur" (x
    under a Gaussian of 16 pixels), "mean" (the mean colour) or "black"; step 0 is x. seed: draws equal values' order.
    Raises ValueError for a wrong x, values, target or option, IndexError for an unknown class. Petsiuk et al. 2018.
    """


def insertion_curve(model, x, values, target=None, *, steps=28, fill='blur', seed=0):
    """Probabilities of a class while pixels are put into an empty picture, the largest value first: `(N, steps + 1)`.

    Options and errors as in `deletion_curve`; step 0 is the filling alone, the last step is x. Petsiuk et al. 2018.
    """


def middle_blob(model, x, target=None):
    """A Gaussian blob in the centre, `(N, 1, H, W)`: what a map looks like that has looked at nothing."""


def coarse_occlusion(model, x, target=None):
    """`occlusion` with patches of a fifth of the picture, half a patch apart: `(N, 1, h, w)`, signed."""


def sheet_techniques():
    """Name → technique: what stands on the sheet, each a function `(model, x, target)`."""


def own_maps(model, x, target=None, *, techniques=None, shuffle=True, seed=0):
    """Yields for each technique its name, its map, the map's twin under shuffled weights, and words.

    x: one preprocessed picture `(1, 3, H, W)`. target: a class, or None for the top class. techniques: as
    `sheet_techniques` gives them. A map that cannot be had is None, and the words say why; else they are what the
    technique warned of. The twin is None where there is none, and with shuffle=False.
    """


def survived(values, twin):
    """Spearman's rank correlation of maps with their twins, `(N,)`; colour channels are added up. 0 for a constant."""


def say_map(values, twin, words):
    """The range of a map, its channels added up, and how much survives in its twin; or the words: why there is none."""


def say_output(model, x, target):
    """How many scores there are and their range; an error in words for what is no classifier with scores."""


def say_answer(model, x, target):
    """The two most probable classes."""


def say_state(model, x, target):
    """How many modules are in training mode, and how many work in place."""


def say_repeatable(model, x, target):
    """Whether two passes give the same scores."""


def say_activations(model, x, target):
    """The activations on the way to the score, and how many the ReLU rule reaches."""


def say_last_map(model, x, target):
    """The last layer with positions, its grid and channels; and up to two earlier ones with finer grids."""


def say_gradient(model, x, target):
    """How much of the gradient is zero, and what a tiny step changes, both ways, over what the gradient promises."""


def say_completeness(model, x, target):
    """What integrated gradients add up to, over the rise of the score from the mean colour."""


def say_conservation(model, x, target):
    """What LRP adds up to, over the score."""


def same_answers(model, x):
    """Change → whether the top class of a picture `(1, 3, H, W)` is the same after it."""


def smallest_step(model, x):
    """The smallest of 1/32, 1/16, … 32 gray levels at which one step along signs changes the answer, or inf."""


def say_survival(model, x, target):
    """After which changes the answer is the same."""


def say_other_answer(model, x, target):
    """How far it is to another answer."""


def report_lines():
    """Label → question of the report, a function `(model, x, target)` whose answer is a sentence."""


def report(model, x, target=None):
    """Label → sentence: what can be asked of a network about one picture x `(1, 3, H, W)`; it never raises.

    target: the class that is asked about, None for the top class.
    """


def own_sheet(model, image, target=None, *, shuffle=True, folder='', techniques=None):
    """Yields `Step(number, None, sheet)`: first with the report, then after each map; the sheet is `(1, 3, H, W)`.

    image: a `PIL.Image`. target: a class, or None for the top class. shuffle: a twin beside each map. folder: where to
    save the report, and each map with its recipe; "" for nowhere. techniques: as in `own_maps`.
    """
