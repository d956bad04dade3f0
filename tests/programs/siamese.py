'''Trains a Siamese MLP on pairs, with a Lambda distance and contrastive loss.'''
from __future__ import absolute_import
import numpy as np

import random
from keras.models import Model
from keras.layers import Input, Flatten, Dense, Dropout, Lambda
from keras.optimizers import RMSprop
from keras import backend as K

num_classes = 3
epochs = 5


def euclidean_distance(vects):
    x, y = vects
    sum_square = K.sum(K.square(x - y), axis=1, keepdims=True)
    return K.sqrt(K.maximum(sum_square, K.epsilon()))


def eucl_dist_output_shape(shapes):
    shape1, shape2 = shapes
    return (shape1[0], 1)


def contrastive_loss(y_true, y_pred):
    '''Contrastive loss from Hadsell-et-al.'06'''
    margin = 1
    square_pred = K.square(y_pred)
    margin_square = K.square(K.maximum(margin - y_pred, 0))
    return K.mean(y_true * square_pred + (1 - y_true) * margin_square)


def create_base_network(input_shape):
    input = Input(shape=input_shape)
    x = Flatten()(input)
    x = Dense(32, activation='relu')(x)
    x = Dropout(0.1)(x)
    x = Dense(16, activation='relu')(x)
    return Model(input, x)


def compute_accuracy(y_true, y_pred):
    pred = y_pred.ravel() < 0.5
    return np.mean(pred == y_true)


def accuracy(y_true, y_pred):
    '''Compute classification accuracy with a fixed threshold on distances.'''
    return K.mean(K.equal(y_true, K.cast(y_pred < 0.5, y_true.dtype)))


rng = np.random.RandomState(0)
centers = rng.rand(num_classes, 4, 4)
labels = rng.randint(0, num_classes, (2, 200))
pairs = np.stack([centers[l] + 0.1 * rng.randn(200, 4, 4) for l in labels], 1).astype('float32')
y = (labels[0] == labels[1]).astype('float32')
input_shape = pairs.shape[2:]

base_network = create_base_network(input_shape)
input_a = Input(shape=input_shape)
input_b = Input(shape=input_shape)

# because we re-use the same instance `base_network`, the weights will be shared
processed_a = base_network(input_a)
processed_b = base_network(input_b)

distance = Lambda(euclidean_distance,
                  output_shape=eucl_dist_output_shape)([processed_a, processed_b])
model = Model([input_a, input_b], distance)

rms = RMSprop(lr=0.01)
model.compile(loss=contrastive_loss, optimizer=rms, metrics=[accuracy])
model.fit([pairs[:, 0], pairs[:, 1]], y, batch_size=32, epochs=epochs, verbose=0)

y_pred = model.predict([pairs[:, 0], pairs[:, 1]])
tr_acc = compute_accuracy(y, y_pred[:, 0])
print('* Accuracy on training set: %0.2f%%' % (100 * tr_acc))
assert tr_acc > 0.8, tr_acc
assert abs(model.evaluate([pairs[:, 0], pairs[:, 1]], y, verbose=0)[1] - tr_acc) < 1e-5
assert K.get_value(model.optimizer.lr) == np.float32(0.01)
