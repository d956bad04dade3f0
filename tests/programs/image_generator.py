'''A small convolutional network trained by fit_generator on augmented images.'''
import numpy as np
from keras.preprocessing.image import ImageDataGenerator
from keras.models import Sequential
from keras.layers import Dense, Dropout, Activation, Flatten
from keras.layers.convolutional import Convolution2D, MaxPooling2D
from keras.optimizers import SGD
from keras.utils import np_utils
from keras.utils import Sequence
from keras import backend as K

K.set_image_dim_ordering('tf')
assert K.image_dim_ordering() == 'tf'
rng = np.random.RandomState(0)
nb_classes, batch_size = 2, 16
labels = rng.randint(0, nb_classes, 48)
X_train = rng.rand(48, 8, 8, 1).astype('float32')
X_train[labels == 1, :, :4] += 1
Y_train = np_utils.to_categorical(labels, nb_classes)

model = Sequential()
model.add(Convolution2D(4, 3, 3, border_mode='same', input_shape=X_train.shape[1:]))
model.add(Activation('relu'))
model.add(MaxPooling2D(pool_size=(2, 2)))
model.add(Dropout(0.25))
model.add(Flatten())
model.add(Dense(output_dim=nb_classes))
model.add(Activation('softmax'))
sgd = SGD(lr=0.1, decay=1e-6, momentum=0.9, nesterov=True)
model.compile(loss='categorical_crossentropy', optimizer=sgd, metrics=['accuracy'])

datagen = ImageDataGenerator(
    featurewise_center=True,
    featurewise_std_normalization=True,
    width_shift_range=0.1,
    horizontal_flip=False)
datagen.fit(X_train)

history = model.fit_generator(datagen.flow(X_train, Y_train, batch_size=batch_size),
                              steps_per_epoch=X_train.shape[0] // batch_size,
                              epochs=4, verbose=0,
                              validation_data=datagen.flow(X_train, Y_train, batch_size=batch_size),
                              validation_steps=2, workers=2, use_multiprocessing=True)
assert history.history['loss'][-1] < history.history['loss'][0]


class Batches(Sequence):
    def __len__(self):
        return 3

    def __getitem__(self, idx):
        part = slice(idx * batch_size, (idx + 1) * batch_size)
        return X_train[part], Y_train[part]


model.fit_generator(Batches(), epochs=1, verbose=0, workers=2, max_queue_size=2)
loss, acc = model.evaluate_generator(Batches(), steps=3)
assert model.predict_generator(Batches(), steps=3).shape == (48, 2)


def endless():
    while True:
        for i in range(3):
            yield Batches()[i]


model.fit_generator(endless(), samples_per_epoch=None, steps_per_epoch=3, nb_epoch=1, verbose=0)
